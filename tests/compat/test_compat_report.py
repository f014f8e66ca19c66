# SPDX-License-Identifier: Apache-2.0
"""A sample of tools/compat_report.py on the installed PaddleSeg: a small model through all stages, a file that nobody builds."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# As PaddleSeg's own files are written; the schedule is that of releases before 2.8 in the first.
CONFIG = """
batch_size: 4
iters: 100
train_dataset:
  type: Dataset
  dataset_root: data
  train_path: data/train.txt
  num_classes: 3
  mode: train
  transforms: [{{type: ResizeStepScaling}}, {{type: RandomPaddingCrop, crop_size: [64, 64]}}, {{type: Normalize}}]
val_dataset:
  type: Dataset
  dataset_root: data
  val_path: data/val.txt
  num_classes: 3
  mode: val
  transforms: [{{type: Normalize}}]
optimizer: {optimizer}
lr_scheduler: {{type: PolynomialDecay, learning_rate: 0.01, end_lr: 0, power: 0.9}}
loss: {{types: [{{type: CrossEntropyLoss}}], coef: [1]}}
model: {{type: {model}, num_classes: 3}}
"""


def test_a_sample(tmp_path):
    folder = tmp_path / "configs"
    (folder / "_base_").mkdir(parents=True)
    (folder / "_base_" / "not_counted.yml").write_text("x: 1")
    for name, optimizer, model in (
        ("enet", "{type: sgd, weight_decay: 4.0e-5}", "ENet"),
        ("nobody", "{type: SGD}", "NoSuchNet"),
    ):
        (folder / f"{name}.yml").write_text(CONFIG.format(optimizer=optimizer, model=model))
    words = [
        "--configs",
        str(folder),
        "--chain",
        "--size",
        "64",
        "64",
        "--json",
        str(tmp_path / "all.json"),
        "--name",
        "sample",
    ]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(ROOT / "tools/compat_report.py"), *words], capture_output=True, text=True,
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}, timeout=400,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads((tmp_path / "all.json").read_text())
    assert found["build"]["enet.yml"] == {"load": "", "build": "", "theirs": None}
    nobody = found["build"]["nobody.yml"]
    assert "there is no model named 'NoSuchNet'" in nobody["load"] and "NoSuchNet" in nobody["theirs"]
    assert found["chain"] == {"ENet": {"train": "", "val": "", "export": "", "infer": "", "theirs": None}}
    assert "1 of 2 configurations load and build; of the other 1, 1 PaddleSeg itself cannot build" in done.stdout
    assert "Chains of 1 models: train 1, val 1, export 1, infer 1." in done.stdout
