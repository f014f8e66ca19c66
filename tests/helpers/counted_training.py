# SPDX-License-Identifier: Apache-2.0
"""Counts what a training step reads from the device and exchanges between processes.

As a program, `python counted_training.py FOLDER OPTIONS OPTS...`, it trains in FOLDER and prints one JSON line for each process.
"""

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import tiny_training  # noqa: E402,I001  adds the path of the package and imports it before paddle
import paddle  # noqa: E402
import paddle.distributed as dist  # noqa: E402
from paddle_dnl.config import Config  # noqa: E402
from paddle_dnl.registry import MODELS  # noqa: E402
from paddle_dnl.training import loss_window  # noqa: E402
from paddle_dnl.training.trainer import Trainer, TrainOptions  # noqa: E402

_READS = ("numpy", "item", "__float__", "__bool__", "__int__", "__array__", "tolist")
EXCHANGES = ("all_reduce", "all_gather", "all_gather_object", "broadcast", "barrier")


@MODELS.add_component
class HalfUsedNet(tiny_training.TinyNet):
    """With a layer whose output no loss gets."""

    def __init__(self, num_classes, **kwargs):
        super().__init__(num_classes, **kwargs)
        self.left_out = paddle.nn.Conv2D(3, 3, 1)


def count(patch) -> list[str]:
    """A list that grows with each read or exchange; `patch(object, name, value)` sets an attribute."""
    found, inside = [], []
    for owner, names in ((paddle.Tensor, _READS), (dist, EXCHANGES)):
        for name in names:
            original = getattr(owner, name)

            def counting(*args, _original=original, _name=name, **kwargs):
                if not inside:  # `bool(tensor)` calls `numpy`: one read
                    found.append(_name)
                inside.append(_name)
                try:
                    return _original(*args, **kwargs)
                finally:
                    inside.pop()

            patch(owner, name, counting)
    return found


def run(folder: Path, patch, opts=(), **options) -> tuple[Trainer, list[dict]]:
    """Trains; for each step what was `counted` and whether it is a `read` point."""
    patch(loss_window, "_READ_SECONDS", 1e6)  # however slow the machine is
    counted, steps = count(patch), []

    class Counting(Trainer):
        def step(self, batches):
            before = len(counted)
            found = super().step(batches)
            steps.append({"counted": counted[before:], "read": found is not None})
            return found

    given = {"seed": 7, "log_iters": 5, "save_interval": 100, "save_dir": str(folder / "output"), **options}
    trainer = Counting(Config(str(folder / "config.yml"), opts=list(opts)), TrainOptions(**given))
    trainer.run()
    return trainer, steps


if __name__ == "__main__":
    paddle.set_device("cpu")
    trainer, steps = run(Path(sys.argv[1]), setattr, sys.argv[3:], **json.loads(sys.argv[2]))
    rank = os.environ["PADDLE_TRAINER_ID"]
    found = {"steps": steps, "find_unused": trainer.forward.find_unused_parameters}
    Path(sys.argv[1], f"counted_{rank}.json").write_text(json.dumps(found))
    os._exit(
        0
    )  # as the programs do: at a usual exit Paddle may abort while another rank still asks the store of rank 0
