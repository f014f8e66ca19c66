# SPDX-License-Identifier: Apache-2.0
"""A training small enough for tests: eight noise images, a two-layer net without batch statistics.

Also a program: `python tests/helpers/tiny_training.py FOLDER ...` trains in FOLDER, so that tests can launch, kill and resume
real processes.
"""

import argparse
import json
import os
import sys
import types
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import paddle_dnl  # noqa: E402,F401,I001  first: it loads zlib before paddle
import cv2  # noqa: E402
import numpy as np  # noqa: E402
import paddle  # noqa: E402
from paddle import nn  # noqa: E402

from paddle_dnl.config import Config  # noqa: E402
from paddle_dnl.training.trainer import TrainOptions, train_from_config  # noqa: E402
from paddle_dnl.registry import MODELS  # noqa: E402


@MODELS.add_component
class TinyNet(nn.Layer):
    """Convolution, dropout, convolution, and a second output in training."""

    def __init__(self, num_classes, in_channels=3, dropout=0.5, poison=None):
        super().__init__()
        self.conv = nn.Conv2D(in_channels, 8, 3, padding=1)
        self.dropout = nn.Dropout2D(dropout)
        self.cls = nn.Conv2D(8, num_classes, 1)
        self.aux = nn.Conv2D(8, num_classes, 1)
        self.poison, self.calls = poison, 0

    def forward(self, x):
        x = self.dropout(nn.functional.relu(self.conv(x)))
        if not self.training:
            return [self.cls(x)]
        self.calls += 1
        aux = self.aux(x)
        if self.calls == self.poison:
            aux = aux * float("nan")
        return [self.cls(x), aux]


def make_data(folder: Path, count: int = 8, size: int = 24) -> None:
    """Writes images, labels and list files."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for i in range(count):
        label = rng.integers(0, 3, (size // 8, size // 8)).repeat(8, 0).repeat(8, 1).astype(np.uint8)
        image = (label[..., None] * 80 + rng.integers(0, 60, (size, size, 3))).astype(np.uint8)
        cv2.imwrite(str(folder / f"image_{i}.png"), image)
        cv2.imwrite(str(folder / f"label_{i}.png"), label)
        lines.append(f"image_{i}.png label_{i}.png\n")
    (folder / "train.txt").write_text("".join(lines))
    (folder / "val.txt").write_text("".join(lines[:3]))


CONFIG = """
batch_size: 2
iters: 10
model: {{type: TinyNet, num_classes: 3}}
train_dataset:
  type: Dataset
  dataset_root: {data}
  train_path: {data}/train.txt
  num_classes: 3
  mode: train
  transforms:
    - {{type: RandomHorizontalFlip}}
    - {{type: RandomDistort, brightness_range: 0.4}}
    - {{type: Normalize}}
val_dataset:
  type: Dataset
  dataset_root: {data}
  val_path: {data}/val.txt
  num_classes: 3
  mode: val
  transforms: [{{type: Normalize}}]
optimizer: {{type: SGD, momentum: 0.9, weight_decay: 1.0e-4}}
lr_scheduler: {{type: PolynomialDecay, learning_rate: 0.05, end_lr: 0, power: 0.9}}
loss: {{types: [{{type: CrossEntropyLoss}}], coef: [1, 0.4]}}
"""


def write_config(folder: Path) -> Path:
    """Writes the data and the configuration into `folder`; never in a rank of several, which would all write the same files.

    Raises:
        RuntimeError: the test has to do it before it starts them.
    """
    if os.environ.get("PADDLE_TRAINERS_NUM", "1") != "1":
        raise RuntimeError(f"{folder}: the test writes its configuration and data before it starts several ranks")
    make_data(folder / "data")
    path = folder / "config.yml"
    path.write_text(CONFIG.format(data=folder / "data"))
    return path


def train(folder: Path, opts=(), **options):
    """Trains in `folder/output` unless `save_dir` says otherwise; returns the progress."""
    path = folder / "config.yml"
    if not path.exists():
        write_config(folder)
    defaults = {"save_dir": str(folder / "output"), "seed": 7, "save_interval": 5, "log_iters": 1}
    given = TrainOptions(**{**defaults, **options})
    return train_from_config(Config(str(path), opts=list(opts)), types.SimpleNamespace(**vars(given)))


def weights(folder: Path) -> dict[str, np.ndarray]:
    """The weights, optimizer slots and averages in a checkpoint folder, flat."""
    from paddle_dnl.weights.loading import NAME_TABLE, read_params

    flat, names = {}, {}
    for name in ("model.pdparams", "ema_model.pdparams"):
        if (folder / name).exists():
            state = read_params(folder / name)
            table = state.pop(NAME_TABLE)
            flat |= {f"{name}:{key}": value for key, value in state.items()}
            names = names or {generated: key for key, generated in table.items()}
    for key, value in read_params(folder / "model.pdopt").items():
        if isinstance(value, np.ndarray):
            generated = max((n for n in names if key.startswith(n + "_")), key=len)
            flat[f"optimizer:{names[generated]}{key[len(generated) :]}"] = value
    return flat


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--options", type=json.loads, default={})
    parser.add_argument("--opts", nargs="*", default=[])
    args = parser.parse_args()
    paddle.set_device("cpu")
    try:
        train(args.folder, args.opts, **args.options)
    except paddle_dnl.errors.PaddleDnlError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(error.exit_status)
