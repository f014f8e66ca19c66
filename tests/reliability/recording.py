# SPDX-License-Identifier: Apache-2.0
"""A trainer that notes what each step saw and computed, and the resume matrix, in one process or as a program of a launch.

As a program, `python recording.py PART FOLDER CASES_JSON` runs a part of some cases, so that two ranks need two launches
for all of them: `first` trains 10 steps unbroken and 5 steps up to a SIGTERM, `second` resumes those five.
"""

import dataclasses
import hashlib
import json
import os
import shutil
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "helpers"))

import tiny_training  # noqa: E402,I001  imports paddle_dnl before paddle
import numpy as np  # noqa: E402
import paddle  # noqa: E402
from faulty_training import pretend_gpu  # noqa: E402

from paddle_dnl.cli._run import run  # noqa: E402
from paddle_dnl.config import Config  # noqa: E402
from paddle_dnl.distributed import collectives  # noqa: E402
from paddle_dnl.weights.safe_pickle import read_pickle  # noqa: E402
from paddle_dnl.training.trainer import Trainer, TrainOptions  # noqa: E402

UNDER_LAUNCH = "group"


class RecordingTrainer(Trainer):
    """Notes per step: losses, learning rate and a digest of what was fed, all exact.

    Args:
        stop_at: step after which the process gets SIGTERM.
        overflow_at: steps whose gradients become infinite, as fp16 makes them when the loss scale is too large.
    """

    def __init__(self, config, options, stop_at=None, overflow_at=()):
        self.steps, self.fed, self.stop_at, self.overflow_at = [], [], stop_at, overflow_at
        super().__init__(config, options)

    def _backward(self, data):
        fed = b"".join(np.asarray(data[name]).tobytes() for name in ("img", "label"))
        self.fed.append(hashlib.sha256(fed).hexdigest())
        losses = super()._backward(data)
        if self.state.iteration in self.overflow_at:
            gradient = self.model.cls.weight.grad
            gradient.set_value(paddle.full(gradient.shape, float("inf")))
        return losses

    def step(self, batches):
        self.fed, rate = [], self.optimizer.get_lr()
        found = super().step(batches)
        if self.state.iteration == self.stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        exact = {name: float(value).hex() for name, value in found.losses.items()} if found else {}
        note = {"iteration": self.state.iteration, "losses": exact, "fed": self.fed, "lr": float(rate).hex()}
        self.steps.append(note)
        return found


@dataclasses.dataclass(frozen=True)
class Case:
    """One row of the resume matrix."""

    optimizer: str
    amp: bool
    ema: bool
    workers: int

    def __str__(self):
        return f"{self.optimizer}-{'amp' if self.amp else 'fp32'}-{'ema' if self.ema else 'plain'}-{self.workers}"


MATRIX = [
    Case(optimizer, amp, ema, workers)
    for optimizer in ("Momentum", "Adam", "AdamW")
    for amp in (False, True)
    for ema in (False, True)
    for workers in (0, 2)
]


def make_config(folder: Path, opts=(), model: str = "TinyNormNet") -> Config:
    """The tiny configuration; `optimizer.type` decides whether there is a momentum."""
    path = folder / "config.yml"
    if not path.exists():
        tiny_training.write_config(folder)
        text = path.read_text().replace("{type: SGD, momentum: 0.9, weight_decay: 1.0e-4}", "{type: Adam}")
        path.write_text(text.replace("type: TinyNet,", f"type: {model},"))
    return Config(str(path), opts=list(opts))


def record(config: Config, save_dir: Path, *, stop_at=None, overflow_at=(), **options) -> list[dict]:
    """Trains and returns the notes."""
    defaults = {"seed": 7, "save_interval": 5, "log_iters": 1, "do_eval": True}
    given = TrainOptions(**{**defaults, "save_dir": str(save_dir), **options})
    trainer = RecordingTrainer(config, given, stop_at=stop_at, overflow_at=overflow_at)
    trainer.run()
    return trainer.steps


def run_part(part: str, case: Case, folder: Path) -> None:
    """Trains one part of a case and writes the notes of this rank beside it."""
    opts = [f"optimizer.type={case.optimizer}"]
    if case.optimizer == "Momentum":
        opts += ["optimizer.momentum=0.9", "optimizer.weight_decay=1.0e-4"]
    config = make_config(folder, opts)
    options = {"use_ema": case.ema, "num_workers": case.workers, "precision": "fp16" if case.amp else "fp32"}
    options["overflow_at"] = (3, 7) if case.amp else ()
    here = folder / str(case)
    runs = {
        "first": [("whole", {}), ("parts", {"stop_at": 5})],
        "second": [("parts", {"resume_model": "auto"})],
    }
    for name, more in runs[part]:
        steps = record(config, here / name, **options, **more)
        notes = here / f"{name}_{part}_{collectives.rank()}.json"
        notes.write_text(json.dumps(steps))


def check_case(case: Case, folder: Path, ranks: int) -> None:
    """5 + 5 == 10: losses, rates and what was fed on each rank; weights, slots, averages, scores and states."""
    here = folder / str(case)
    for rank in range(ranks):
        whole, first, second = (
            json.loads((here / f"{name}_{rank}.json").read_text())
            for name in ("whole_first", "parts_first", "parts_second")
        )
        assert [len(steps) for steps in (whole, first, second)] == [10, 5, 5], case
        assert first + second == whole, f"{case}, rank {rank}"
        assert len({digest for step in whole for digest in step["fed"]}) == 10
    for name in ("iter_5", "iter_10", "best_model"):
        left, right = (here / run / name for run in ("whole", "parts"))
        states = [read_pickle(path / "model.pdstates") for path in (left, right)]
        assert states[0] == states[1], f"{case}, {name}"
        values = [tiny_training.weights(path) for path in (left, right)]
        assert values[0].keys() == values[1].keys() and len(values[0]) > 12
        for key, value in values[0].items():
            np.testing.assert_array_equal(value, values[1][key], err_msg=f"{case}: {name}: {key}")
    scaler = read_pickle(here / "parts" / "iter_5" / "model.pdstates")["scaler"]
    assert scaler.get("scale") == ([2.0**14] if case.amp else None)
    shutil.rmtree(here)


def main(argv=None) -> int:
    """Runs one part of all cases in this rank."""
    part, folder, cases = (argv or sys.argv[1:])[:3]
    paddle.set_device("cpu")
    if part == "second":
        collectives._CHUNK_BYTES = 100  # arrays of the checkpoint are sent in parts
        paddle.nn.Conv2D(3, 3, 3)  # other layers shift the generated parameter names
    with_amp = [Case(**case) for case in json.loads(cases)]
    for case in sorted(with_amp, key=lambda case: case.amp):
        if case.amp:
            pretend_gpu(setattr)
        run_part(part, case, Path(folder))
    return 0


if __name__ == "__main__":
    run("recording")
