# SPDX-License-Identifier: Apache-2.0
"""predict-dataset as a program: on a Ray that it starts on this machine (slow), and what is told before that."""

import os
import subprocess
import sys
import time
from pathlib import Path

from paddle_dnl.cli import infer

import cv2
import pytest
from tiny_export import blocks, export_color_net

ROOT = Path(__file__).resolve().parents[3]


def _photos(root: Path, count: int) -> list[str]:
    """An exported model and pictures; returns the flags that both programs have."""
    export_color_net(root / "export")
    (root / "photos").mkdir()
    for i in range(count):
        cv2.imwrite(str(root / "photos" / f"a{i}.png"), blocks(4, 8, 8 + i % 3, i)[0])
    return ["--config", str(root / "export"), "--image_path", str(root / "photos")]


def _environment() -> dict[str, str]:
    return dict(os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1", RAY_USAGE_STATS_ENABLED="0")


def _predict_dataset(*flags, **more) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "paddle_dnl", "predict-dataset", *map(str, flags)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=_environment(), **more)


def _labels(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.png")}


@pytest.mark.slow
def test_on_this_machine(tmp_path):
    flags = _photos(tmp_path, 6)
    assert infer.main([*flags, "--save_dir", str(tmp_path / "infer"), "--no_overlay"]) == 0
    run = [*flags, "--save_dir", tmp_path / "out", "--chunk_size", 2, "--actors", 1]
    done = _predict_dataset(*run)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 pictures predicted" in done.stdout + done.stderr
    assert _labels(tmp_path / "out") == _labels(tmp_path / "infer")
    # What is wrong in an actor is one line of the program.
    (tmp_path / "photos" / "a9.png").write_bytes(b"no picture")
    done = _predict_dataset(*run)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("Error")]
    assert done.returncode == 1 and "a9.png" in line and "Traceback" not in done.stdout + done.stderr, done.stderr


@pytest.mark.slow
def test_a_driver_that_is_killed_is_one_line(tmp_path):
    """The process that talks to Ray, as when memory runs out: the program ends, and so do Ray's processes."""
    import psutil

    command = [*_photos(tmp_path, 2), "--save_dir", str(tmp_path / "out"), "--actors", "1"]
    command = [sys.executable, "-m", "paddle_dnl", "predict-dataset", *command]
    run = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=_environment(), start_new_session=True)
    until = time.monotonic() + 100
    while not (below := [p for p in psutil.Process(run.pid).children(recursive=True) if "raylet" in p.name()]):
        assert time.monotonic() < until
        time.sleep(0.05)
    below[0].parent().kill()
    said = run.communicate(timeout=100)[1]  # Ray's processes, too, have closed the stream
    assert run.returncode == 1 and "Error: Ray: its driver process ended by signal 9" in said, said
    assert "Traceback" not in said, said


def test_what_is_wrong_is_told_before_ray_is_started(tmp_path):
    flags = [*_photos(tmp_path, 1), "--save_dir", tmp_path / "out"]
    (tmp_path / "out").mkdir()
    for more, text in (
        (["--actors", 0], "--actors must be at least 1"),
        (["--column", "jpeg"], "no Parquet file"),
        (["--image_path", tmp_path / "out"], "is the folder of pictures"),
        (["--address", "127.0.0.1:1"], "--address 127.0.0.1:1: no Ray cluster can be reached"),
    ):
        done = _predict_dataset(*flags, *more)
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("Error")]
        assert done.returncode and text in line and "Traceback" not in done.stderr, done.stderr
    hidden = (
        "import sys; sys.modules['ray'] = None; sys.argv[1:1] = ['predict-dataset']; import paddle_dnl.__main__ as m"
    )
    command = [sys.executable, "-c", hidden + "; m.main()", *map(str, flags)]
    done = subprocess.run(command, capture_output=True, text=True, env=_environment(), timeout=100)
    assert "predict-dataset: ray is not installed; pip install ray pyarrow" in done.stderr, done.stderr
