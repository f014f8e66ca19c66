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
  ignore_index: 100
  mode: train
  transforms: [{{type: ResizeStepScaling}}, {{type: RandomPaddingCrop, crop_size: [64, 64]}}, {{type: Normalize}}]
val_dataset:
  type: Dataset
  dataset_root: data
  val_path: data/val.txt
  num_classes: 3
  ignore_index: 100
  mode: val
  transforms: [{{type: Normalize}}]
optimizer: {optimizer}
lr_scheduler: {{type: PolynomialDecay, learning_rate: 0.01, end_lr: 0, power: 0.9}}
loss: {{types: [{{type: CrossEntropyLoss, ignore_index: 100}}], coef: [1]}}
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
    chain = {"file": "enet.yml", "train": "", "val": "", "export": "", "infer": "", "theirs": None}
    assert found["chain"] == {"ENet": chain}
    assert "| sample | 1 of 2 | 1 |" in done.stdout
    assert (
        "Chains of 1 models of sample: train 1, val 1, export 1, infer 1. Pictures of 64 x 64, limit of 120 s"
        in done.stdout
    )
    stored = [str(tmp_path / "all.json")] * 2
    again = subprocess.run(
        [sys.executable, str(ROOT / "tools/compat_report.py"), "--tables", *stored], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=100,
    )  # fmt: skip
    assert again.stdout.count("| sample | 1 of 2 | 1 |") == 2 and "| nobody.yml | sample, sample |" in again.stdout
