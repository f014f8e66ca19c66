# SPDX-License-Identifier: Apache-2.0
"""The training loop: resume, accumulation, averaging, stops and what is written."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from paddle_dnl.errors import CheckpointError, NonFiniteError

import numpy as np
import paddle
import pytest
import tiny_training
from started_programs import environment
from tiny_training import train, weights, write_config

PROGRAM = Path(tiny_training.__file__)


def _same(left: Path, right: Path):
    left, right = weights(left), weights(right)
    assert left.keys() == right.keys() and len(left) > 6
    for key, value in left.items():
        np.testing.assert_array_equal(value, right[key], err_msg=key)


@pytest.mark.parametrize(
    "opts, options",
    [
        ([], {}),
        (["optimizer.type=Adam", "optimizer.momentum=null"], {"use_ema": True, "num_workers": 2}),
        (["optimizer.type=AdamW", "optimizer.momentum=null", "grad_accum_iters=2"], {"precision": "fp16"}),
    ],
    ids=["momentum", "adam-ema-workers", "adamw-accumulation-amp"],
)
def test_five_and_five_are_ten(tmp_path, opts, options):
    write_config(tmp_path)
    opts = [opt for opt in opts if not opt.endswith("momentum=null")]
    if any("Adam" in opt for opt in opts):
        path = tmp_path / "config.yml"
        path.write_text(path.read_text().replace("momentum: 0.9, ", ""))
    train(tmp_path, opts, save_dir=str(tmp_path / "whole"), **options)
    train(tmp_path, opts, save_dir=str(tmp_path / "parts"), **options)
    for name in ("iter_10",):
        for path in (tmp_path / "parts" / name).iterdir():
            path.unlink()
        (tmp_path / "parts" / name).rmdir()
    paddle.nn.Linear(3, 3)  # shifts the generated parameter names
    train(tmp_path, opts, save_dir=str(tmp_path / "parts"), resume_model="auto", **options)
    _same(tmp_path / "whole" / "iter_10", tmp_path / "parts" / "iter_10")


def test_same_seed_same_weights_whatever_the_workers(tmp_path):
    for name, workers in (("a", 0), ("b", 2)):
        train(tmp_path, save_dir=str(tmp_path / name), num_workers=workers)
    train(tmp_path, save_dir=str(tmp_path / "c"), seed=8)
    _same(tmp_path / "a" / "iter_10", tmp_path / "b" / "iter_10")
    assert not np.array_equal(
        weights(tmp_path / "a" / "iter_10")["model.pdparams:cls.weight"],
        weights(tmp_path / "c" / "iter_10")["model.pdparams:cls.weight"],
    )


def test_accumulation_equals_the_joint_batch(tmp_path):
    no_dropout = ["model.dropout=0.0"]
    train(tmp_path, [*no_dropout, "batch_size=4", "iters=4"], save_dir=str(tmp_path / "joint"))
    train(tmp_path, [*no_dropout, "grad_accum_iters=2", "iters=4"], save_dir=str(tmp_path / "parts"))
    joint, parts = (weights(tmp_path / name / "iter_4") for name in ("joint", "parts"))
    for key, value in joint.items():
        np.testing.assert_allclose(value, parts[key], rtol=1e-4, atol=1e-6, err_msg=key)


def test_ema_follows_its_formula(tmp_path):
    train(tmp_path, ["iters=3"], save_interval=1, use_ema=True)
    average = None
    start = weights(tmp_path / "output" / "iter_1")
    for step in (1, 2, 3):
        state = weights(tmp_path / "output" / f"iter_{step}")
        value = state["model.pdparams:conv.weight"].astype("float64")
        if average is None:  # before step 1 the average is the initial model, which was not saved
            average = start["ema_model.pdparams:conv.weight"].astype("float64")
            continue
        decay = min(0.999, 1 - 1 / (step + 1))
        average = decay * average + (1 - decay) * value
        np.testing.assert_allclose(state["ema_model.pdparams:conv.weight"], average, rtol=1e-5, atol=1e-7)


def test_what_is_written_and_logged(tmp_path, capsys):
    progress = train(tmp_path, ["iters=6"], save_interval=2, keep_checkpoint_max=2, do_eval=True, use_vdl=True)
    out = tmp_path / "output"
    assert {p.name for p in out.iterdir() if p.is_dir()} == {"iter_4", "iter_6", "best_model"}
    assert {p.name for p in (out / "iter_6").iterdir()} >= {"model.pdparams", "model.pdopt", "model.pdstates"}
    text = capsys.readouterr().out
    line = r"\[\d{4}/\d\d/\d\d \d\d:\d\d:\d\d\] INFO: \[TRAIN\] epoch: 1, iter: 3/6, loss: \d+\.\d{4}, lr: 0\.\d{6}, "
    line += r"batch_cost: \d+\.\d{4}, reader_cost: \d+\.\d{5}, ips: \d+\.\d{4} samples/sec \| ETA \d\d:\d\d:\d\d"
    assert re.search(line, text)
    assert text.count("[EVAL] #Images: 3 mIoU:") == 3
    assert f"best validation mIoU ({progress.best_miou:.4f}) was saved at iter {progress.best_iteration}" in text

    from paddle_dnl.evaluation.curves import read_scalars

    scalars = read_scalars(out)
    assert {"Train/loss", "Train/lr", "Train/batch_cost", "Train/reader_cost", "Evaluate/mIoU", "Evaluate/Acc"} <= set(
        scalars
    )
    assert scalars["Evaluate/mIoU"][0] == [2, 4, 6]


def test_best_model_can_be_resumed(tmp_path):
    train(tmp_path, ["iters=5"], do_eval=True)
    (tmp_path / "output" / "best_model").rename(tmp_path / "renamed")
    progress = train(tmp_path, resume_model=str(tmp_path / "renamed"), save_dir=str(tmp_path / "more"))
    assert progress.iteration == 10 and progress.best_iteration == 5


def test_early_stop(tmp_path):
    opts = ["lr_scheduler.learning_rate=0.0", "iters=50"]
    progress = train(tmp_path, opts, save_interval=1, do_eval=True, early_stop_intervals=3)
    assert progress.iteration == 4


def test_nan_is_named_and_nothing_bad_is_saved(tmp_path):
    with pytest.raises(NonFiniteError, match=r"iter 7: .*nan.*Last good checkpoint: .*iter_5"):
        train(tmp_path, ["model.poison=7"])
    assert [p.name for p in (tmp_path / "output").glob("iter_*")] == ["iter_5"]


def test_one_run_per_folder_and_no_file_in_its_place(tmp_path):
    write_config(tmp_path)
    (tmp_path / "file").write_text("precious")
    with pytest.raises(CheckpointError, match="is a file"):
        train(tmp_path, save_dir=str(tmp_path / "file"))
    assert (tmp_path / "file").read_text() == "precious"
    from paddle_dnl.training.checkpoints.run_folder import RunFolder

    held = RunFolder(tmp_path / "output")
    with pytest.raises(CheckpointError, match=f"process {os.getpid()} on .* is training"):
        train(tmp_path)
    held.close()


def _start(folder, *words, launch=()):
    command = [sys.executable, *launch, str(PROGRAM), str(folder), *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment())


def test_sigterm_saves_and_auto_goes_on(tmp_path):
    write_config(tmp_path)
    process = _start(tmp_path, "--opts", "iters=100000", "--options", json.dumps({"save_interval": 10**6}))
    for line in process.stdout:
        if "[TRAIN]" in line:
            break
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    text = process.stdout.read()
    assert process.wait(60) == 0, text
    at = int(re.search(r"stopped by signal at iter (\d+)", text).group(1))
    progress = train(tmp_path, [f"iters={at + 2}"], resume_model="auto")
    assert progress.iteration == at + 2


def _losses(text):
    return [float(value) for value in re.findall(r"\[TRAIN\].*?loss: ([\d.]+)", text)]


def test_two_processes_train_as_one_on_the_joint_batch(tmp_path):
    write_config(tmp_path)
    opts = ["--opts", "model.dropout=0.0"]
    launch = ("-m", "paddle.distributed.launch", "--nproc_per_node", "2", "--backend", "gloo")
    launch += ("--log_dir", str(tmp_path / "log"))
    two = _start(
        tmp_path, *opts, "--options", json.dumps({"save_dir": str(tmp_path / "two"), "do_eval": True}), launch=launch
    )
    text = two.communicate(timeout=240)[0]
    assert two.returncode == 0, text
    joint = {"save_dir": str(tmp_path / "one"), "do_eval": True}
    one = _start(tmp_path, *opts, "batch_size=4", "--options", json.dumps(joint))
    one_text = one.communicate(timeout=240)[0]
    assert one.returncode == 0, one_text
    left, right = weights(tmp_path / "one" / "iter_10"), weights(tmp_path / "two" / "iter_10")
    for key, value in left.items():
        np.testing.assert_allclose(value, right[key], rtol=1e-4, atol=1e-6, err_msg=key)
    score = r"\[EVAL\] #Images: (\d+) mIoU: ([\d.]+)"
    assert re.findall(score, text) == re.findall(score, one_text) != []
