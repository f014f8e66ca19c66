# SPDX-License-Identifier: Apache-2.0
"""train.py --find_lr on two ranks: each step's loss is that of one process with the whole batch, and one table is written."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_training

ROOT = Path(__file__).resolve().parents[2]
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
    command = [sys.executable]
    if ranks > 1:
        command += ["-m", "paddle.distributed.launch", "--nproc_per_node", str(ranks), "--log_dir", str(folder / "log")]
    command += [str(ROOT / "train.py"), "--config", str(folder / "config.yml"), "--custom_imports", "two_layers.py"]
    command += [
        "--save_dir",
        str(out),
        "--device",
        "cpu",
        "--find_lr",
        "30",
        "--seed",
        "3",
        "--batch_size",
        str(4 // ranks),
    ]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PADDLE_", "CUDA_VISIBLE"))}
    environment |= {"PYTHONPATH": str(ROOT), "SEG_HOME": str(folder / "home")}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    logs = "".join(path.read_text() for path in folder.glob("log/workerlog.*"))
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:] + logs[-2000:]
    said = logs if ranks > 1 else done.stdout  # the launcher repeats the first rank's log
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
