# SPDX-License-Identifier: Apache-2.0
"""A /dev/shm that is too small for the batches is found before the first step, and batches then come another way."""

import logging
import os
import random
import shutil
import subprocess
import sys
import unittest
from pathlib import Path
from types import SimpleNamespace

from paddle_dnl.data import shared_memory
from paddle_dnl.data.loading import load_batches

import numpy as np
import paddle
import pytest
import tiny_training

PROGRAM = Path(tiny_training.__file__)
BATCH = {
    "img": np.zeros((2, 3, 4, 4), np.float32),
    "more": [{"a": np.zeros(8, np.uint8)}],
    "trans_info": [("resize", 3)],
}
SIZE = 2 * 3 * 4 * 4 * 4 + 8


@pytest.mark.parametrize(
    "workers, environment, ranks",
    [
        (1, {}, 1),
        (3, {}, 1),
        (3, {"PADDLE_LOCAL_SIZE": "4", "PADDLE_TRAINERS_NUM": "8"}, 4),
        # Started by hand: all may be on this machine.
        (3, {"PADDLE_TRAINERS_NUM": "2"}, 2),
    ],
)
def test_as_many_batches_as_the_loader_holds(monkeypatch, workers, environment, ranks):
    """Two for each process, and two in use; for each rank of this machine."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    wanted = (2 * workers + 2) * SIZE * ranks
    for free, expected in ((wanted, True), (wanted - 1, False)):
        monkeypatch.setattr(shared_memory.shutil, "disk_usage", lambda path, free=free: SimpleNamespace(free=free))
        assert shared_memory.suffices(lambda: BATCH, workers) == expected


def test_one_line_however_many_loaders(monkeypatch, caplog):
    monkeypatch.setattr(shared_memory, "_said", [])
    monkeypatch.setattr(shared_memory.shutil, "disk_usage", lambda path: SimpleNamespace(free=3 << 20))
    with caplog.at_level(logging.WARNING, "paddle_dnl"):
        for _ in range(3):
            assert not shared_memory.suffices(lambda: {"img": np.zeros(1 << 20, np.uint8)}, 4)
    lines = [record.getMessage() for record in caplog.records]
    assert (
        len(lines) == 1 and "has 3.0 MB free, and with --num_workers 4 up to 10.0 MB of batches are there" in lines[0]
    )


def test_random_numbers_are_put_back():
    def draw():
        return [random.random(), np.random.uniform(), float(paddle.rand([1]))]

    for generator in (random.seed, np.random.seed, paddle.seed):
        generator(3)
    expected = draw()
    for generator in (random.seed, np.random.seed, paddle.seed):
        generator(3)
    shared_memory.suffices(lambda: draw() and BATCH, 1)
    assert draw() == expected


class _Numbers(paddle.io.Dataset):
    def __len__(self):
        return 6

    def __getitem__(self, index):
        return {"img": np.full((2, 3), index, np.float32)}


def test_the_same_batches_without_shared_memory(monkeypatch):
    def load():
        loaded = load_batches(_Numbers(), [[0, 1], [5, 2]], lambda s: {"img": np.stack([x["img"] for x in s])}, 2)
        return [np.asarray(batch["img"]) for batch in loaded]

    with_it = load()
    monkeypatch.setattr(shared_memory, "suffices", lambda load, workers: False)
    np.testing.assert_array_equal(load(), with_it)


def test_a_training_with_one_megabyte(tmp_path):
    """Six batches of 0.7 MB; with Paddle's loader as it comes a process is killed."""
    if shutil.which("unshare") is None or os.geteuid() != 0:
        raise unittest.SkipTest("needs root and util-linux (unshare)")
    probe = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False)
    if probe.returncode:
        raise unittest.SkipTest("this machine does not allow mount namespaces")
    tiny_training.make_data(tmp_path / "data", size=160)
    (tmp_path / "config.yml").write_text(tiny_training.CONFIG.format(data=tmp_path / "data"))
    script = 'mount -t tmpfs -o size=1m tmpfs /dev/shm && exec "$@"'
    words = [sys.executable, PROGRAM, tmp_path, "--options", '{"num_workers": 2, "do_eval": true}', "--opts", "iters=4"]
    run = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", *map(str, words)],
        capture_output=True, text=True, timeout=240, cwd=tmp_path, env=os.environ | {"SEG_HOME": str(tmp_path / "home")},
    )  # fmt: skip
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
    lines = run.stdout.splitlines()
    found = [i for i, line in enumerate(lines) if "/dev/shm has 1.0 MB free, and with --num_workers " in line]
    assert len(found) == 1 and found[0] < next(i for i, line in enumerate(lines) if "iter: 1/4" in line), run.stdout[
        -2000:
    ]
    assert "[EVAL] #Images: 3" in run.stdout
