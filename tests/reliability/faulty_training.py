# SPDX-License-Identifier: Apache-2.0
"""A real training process with a fault in it: `python faulty_training.py --fault JSON FLAGS_OF_TRAIN_PY`.

Faults (`at` is the step before which it happens, `rank` the process, all of them when it is not given):

    {"kind": "kill"}            the process kills itself, as the kernel does when memory runs out
    {"kind": "stop"}            the process is stopped, as by a debugger
    {"kind": "raise"}           a defect of the program
    {"kind": "nan_loss"}        the first loss becomes NaN
    {"kind": "damage", "path"}  cuts a file in half
    {"kind": "slow_eval", "seconds"}   evaluation takes long on this rank
    {"kind": "slow", "seconds"}   each step takes long
    {"kind": "inf_slot"}        second moments become infinite, so that the weights stand still and stay finite
    {"kind": "amp"}             the loss scaler and its state work as on a GPU
"""

import argparse
import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "helpers"))

import tiny_training  # noqa: E402,F401,I001  adds the path of the package and imports it before paddle
import norm_net  # noqa: E402,F401
import paddle  # noqa: E402
from paddle.amp import grad_scaler  # noqa: E402

from paddle_dnl.cli import train as program  # noqa: E402
from paddle_dnl.cli._run import run  # noqa: E402
from paddle_dnl.training import amp
from paddle_dnl.distributed import collectives
from paddle_dnl.training import trainer  # noqa: E402

UNDER_LAUNCH = "group"


def pretend_gpu(patch) -> None:
    """Makes the loss scaler work on a CPU; `patch(object, name, value)` sets an attribute."""
    place = SimpleNamespace(is_gpu_place=lambda: True, is_xpu_place=lambda: False, is_custom_place=lambda: False)
    patch(grad_scaler, "_dygraph_tracer", lambda: SimpleNamespace(_expected_place=place))
    patch(grad_scaler, "amp_global_state", lambda: SimpleNamespace(amp_dtype="float16"))
    patch(amp, "_supports", lambda precision: True)
    # Paddle's own context says on a CPU that it has no effect, and has none.
    patch(amp, "autocast", lambda precision, level="O1": contextlib.nullcontext())


def _before_step(fault: dict, happen) -> None:
    """Calls `happen(trainer)`."""
    step = trainer.Trainer.step

    def faulty(self, batches):
        if self.state.iteration == fault.get("at", self.state.iteration):
            happen(self)
        return step(self, batches)

    trainer.Trainer.step = faulty


def install(fault: dict) -> None:
    """Puts a fault into this process's training."""
    if fault.get("rank", collectives.rank()) != collectives.rank():
        return
    kind = fault["kind"]
    if kind == "amp":
        pretend_gpu(setattr)
    elif kind == "kill":
        _before_step(fault, lambda trainer: os.kill(os.getpid(), signal.SIGKILL))
    elif kind == "stop":
        _before_step(fault, lambda trainer: os.kill(os.getpid(), signal.SIGSTOP))
    elif kind == "raise":

        def happen(trainer):
            raise RuntimeError("a defect of the program")

        _before_step(fault, happen)
    elif kind == "inf_slot":

        def happen(trainer):
            for key, slot in trainer.optimizer.state_dict().items():
                if "moment2" in key:
                    slot.set_value(paddle.full(slot.shape, float("inf")))

        _before_step(fault, happen)
    elif kind == "nan_loss":

        def happen(trainer):
            losses = trainer.losses
            trainer.losses = lambda *args: [(name, loss * float("nan")) for name, loss in losses(*args)]

        _before_step(fault, happen)
    elif kind == "damage":
        path = Path(fault["path"])
        _before_step(fault, lambda trainer: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]))
    elif kind == "slow":
        _before_step(fault, lambda trainer: time.sleep(fault["seconds"]))
    elif kind == "slow_eval":
        evaluate = trainer.evaluate
        trainer.evaluate = lambda *args, **kwargs: time.sleep(fault["seconds"]) or evaluate(*args, **kwargs)
    else:
        raise ValueError(fault)


def main(argv=None) -> int:
    """As train.py, with faults; `--before FOLDER` is a training there without them that comes first."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--fault", type=json.loads, action="append", default=[])
    parser.add_argument("--before")
    own, rest = parser.parse_known_args(argv)
    paddle.set_device("cpu")
    if own.before:
        program.main([*rest, "--save_dir", own.before])
    for fault in own.fault:
        install(fault)
    return program.main(rest)


if __name__ == "__main__":
    run("faulty_training")
