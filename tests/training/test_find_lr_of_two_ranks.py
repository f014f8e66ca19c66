# SPDX-License-Identifier: Apache-2.0
"""train.py --find_lr on two ranks: each step's loss is that of one process with the whole batch, and one table is written."""

import csv
from pathlib import Path

import numpy as np
import pytest
import tiny_training
from started_programs import run_program

MODULE = """
import paddle_dnl
from paddle import nn
from paddle_dnl.registry import MODELS


@MODELS.add_component
class TwoLayers(nn.Layer):
    def __init__(self, num_classes, in_channels=3):
        super().__init__()
        self.conv, self.cls, self.aux = nn.Conv2D(3, 8, 3, padding=1), nn.Conv2D(8, num_classes, 1), nn.Conv2D(8, num_classes, 1)

    def forward(self, x):
        x = nn.functional.relu(self.conv(x))
        return [self.cls(x), self.aux(x)] if self.training else [self.cls(x)]
"""


def _sweep(folder: Path, ranks: int) -> list[dict]:
    out = folder / f"out{ranks}"
    flags = ["--config", str(folder / "config.yml"), "--custom_imports", "two_layers.py", "--save_dir", str(out)]
    flags += ["--device", "cpu", "--find_lr", "30", "--seed", "3", "--batch_size", str(4 // ranks)]
    said = run_program("train.py", folder, ranks, *flags)
    assert said.count("try --learning_rate") == 1
    assert sorted(path.name for path in (out / "find_lr").glob("find_lr.*")) == ["find_lr.csv", "find_lr.png"]
    with open(out / "find_lr" / "find_lr.csv", newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


@pytest.mark.slow
def test_two_ranks_sweep_as_one(tmp_path):
    config = tiny_training.write_config(tmp_path)
    config.write_text(
        config.read_text().replace("type: TinyNet", "type: TwoLayers") + "custom_imports: [two_layers.py]\n"
    )
    (tmp_path / "two_layers.py").write_text(MODULE)
    one, two = _sweep(tmp_path, 1), _sweep(tmp_path, 2)
    assert len(one) == len(two) >= 20
    for key in ("learning_rate", "loss"):
        np.testing.assert_allclose([row[key] for row in two], [row[key] for row in one], rtol=2e-3)
