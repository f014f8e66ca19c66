# SPDX-License-Identifier: Apache-2.0
"""CPU time of a training step outside forward, backward, optimizer and average: the trainer's, and that of a bare loop.

DNLNet-ResNet18 on batches of two 64x64 pictures, where the host's work weighs most. A bare loop copies a batch to the device,
clears gradients and moves the schedule, and reads nothing.

python benchmarks/step_overhead.py --steps 60
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from paddle_dnl.startup import configure_process  # noqa: E402  first: zlib before paddle

configure_process()

from paddle_dnl.config import Config  # noqa: E402
from paddle_dnl.config.reading import read_config  # noqa: E402
from paddle_dnl.training import trainer as trainer_module  # noqa: E402
from paddle_dnl.training.options import TrainOptions  # noqa: E402
from paddle_dnl.training.trainer import Trainer  # noqa: E402

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import paddle  # noqa: E402

CONFIG = Path(__file__).resolve().parent.parent / "configs/quickstart/dnlnet_resnet18_mini_cityscapes.yml"
SIZE, PICTURES, WARM = 64, 8, 5


class Clock:
    """CPU milliseconds of this process inside the calls that it wraps, for each part of a step."""

    def __init__(self):
        self.parts = {}

    def timed(self, part: str, function):
        """`function`, counted as `part`."""

        def counted(*args, **kwargs):
            began = time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                self.parts[part] = self.parts.get(part, 0.0) + 1e3 * (time.process_time() - began)

        return counted


def write_data(folder: Path) -> dict:
    """The configuration of a run on generated pictures."""
    rng = np.random.default_rng(0)
    lines = []
    for i in range(PICTURES):
        cv2.imwrite(str(folder / f"image_{i}.png"), rng.integers(0, 255, (SIZE, SIZE, 3)).astype(np.uint8))
        cv2.imwrite(str(folder / f"label_{i}.png"), rng.integers(0, 19, (SIZE, SIZE)).astype(np.uint8))
        lines.append(f"image_{i}.png label_{i}.png\n")
    (folder / "train.txt").write_text("".join(lines))
    config = read_config(CONFIG)
    config["train_dataset"] = {
        "type": "Dataset", "dataset_root": str(folder), "train_path": str(folder / "train.txt"), "num_classes": 19,
        "mode": "train", "transforms": [{"type": "Normalize"}],
    }  # fmt: skip
    return config


def measure(folder: Path, steps: int, **options) -> dict[str, float]:
    """Medians over steps, in milliseconds: `step`, its parts, and `outside` of them."""
    config = Config(write_data(folder), iters=WARM + steps)
    given = TrainOptions(save_dir=str(folder / "output"), seed=1, log_iters=10, save_interval=10**6, **options)
    clock, rows = Clock(), []

    class Timed(Trainer):
        def _prepare_model(self):
            super()._prepare_model()
            self.forward = clock.timed("forward", self.forward)
            self.losses = clock.timed("forward", self.losses)
            self.optimizer.step = clock.timed("optimizer", self.optimizer.step)
            if self.ema:
                self.ema.update = clock.timed("average of weights", self.ema.update)

        def step(self, batches):
            clock.parts, began = {}, time.process_time()
            found = super().step(iter_timed(batches))
            rows.append({"step": 1e3 * (time.process_time() - began), "read": found is not None, **clock.parts})
            return found

        def save(self, *args, **kwargs):
            """Not part of a step."""

    class iter_timed:
        def __init__(self, batches):
            self.next = clock.timed("reading", batches.__next__)

        def __next__(self):
            return self.next()

    backward = paddle.Tensor.backward
    paddle.Tensor.backward = clock.timed("backward", backward)
    try:
        Timed(config, given).run()
    finally:
        paddle.Tensor.backward = backward
    return summary(rows[WARM:])


def bare(folder: Path, steps: int) -> dict[str, float]:
    """The same step in a loop of a few lines, on batches that are there."""
    config = Config(write_data(folder), iters=WARM + steps)
    trainer = Trainer(config, TrainOptions(save_dir=str(folder / "bare"), seed=1))
    trainer.close()
    trainer.model.train()
    batches = [
        trainer_module.stack_training([trainer.train_dataset[i % PICTURES], trainer.train_dataset[(i + 1) % PICTURES]])
        for i in range(PICTURES)
    ]
    clock, rows = Clock(), []
    forward, losses = clock.timed("forward", trainer.model), clock.timed("forward", trainer.losses)
    update = clock.timed("optimizer", trainer.optimizer.step)
    for step in range(WARM + steps):
        clock.parts, began = {}, time.process_time()
        batch = batches[step % PICTURES]
        image, label = paddle.to_tensor(batch["img"]), paddle.to_tensor(batch["label"]).astype("int64")
        loss = sum(value for _, value in losses(forward(image), label))
        clock.timed("backward", loss.backward)()
        update()
        trainer.optimizer.clear_grad()
        trainer.schedule.step()
        rows.append({"step": 1e3 * (time.process_time() - began), "read": False, **clock.parts})
    return summary(rows[WARM:])


def summary(rows: list[dict]) -> dict[str, float]:
    """Medians over steps."""
    parts = ("forward", "backward", "optimizer", "average of weights", "reading")
    for row in rows:
        row["outside"] = row["step"] - sum(row.get(part, 0.0) for part in parts)
    names = ("step", *parts, "outside")
    plain, read = ([row for row in rows if row["read"] is is_read] for is_read in (False, True))
    found = {name: statistics.median(row.get(name, 0.0) for row in plain) for name in names}
    found["outside, with a log line"] = statistics.median(row["outside"] for row in read) if read else 0.0
    return found


def main() -> None:
    """Prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--use_ema", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        loop = bare(Path(folder), args.steps)
    with tempfile.TemporaryDirectory() as folder:
        ours = measure(Path(folder), args.steps, use_ema=args.use_ema)
    print(
        f"{os.environ['OMP_NUM_THREADS']} threads, Paddle {paddle.__version__}, {paddle.get_device()}; CPU ms per step, medians"
    )
    print("| part | bare loop | trainer |\n|---|---:|---:|")
    for name, value in ours.items():
        print(f"| {name} | {loop[name]:.2f} | {value:.2f} |")
    print(
        f"outside: {ours['outside']:.2f} ms, {ours['outside'] / max(loop['outside'], 1e-3):.2f} times the bare loop's"
    )


if __name__ == "__main__":
    main()
