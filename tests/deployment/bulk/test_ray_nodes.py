# SPDX-License-Identifier: Apache-2.0
"""predict-dataset on a Ray cluster of two nodes, both on this machine, one of which is killed in the middle."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from paddle_dnl.cli import infer

import cv2
import numpy as np
import pytest
from started_programs import ROOT, environment
from tiny_export import export_color_net

pytestmark = pytest.mark.slow
_PICTURES = 40


@pytest.fixture
def cluster(tmp_path):
    """Two nodes of one core each; gives the address, the environment and the process of the second node."""
    port = 20000 + os.getpid() % 10000
    env = environment(
        PYTHONPATH=str(ROOT),
        OMP_NUM_THREADS="1",
        RAY_USAGE_STATS_ENABLED="0",
        RAY_AUTH_MODE="token",
        RAY_AUTH_TOKEN="a" * 64,
    )
    ray = str(Path(sys.executable).with_name("ray"))
    common = ["--num-cpus", "1", "--object-store-memory", str(100 << 20), "--block", "--disable-usage-stats"]
    started = []
    for words in (["--head", "--port", str(port), "--include-dashboard", "false"], ["--address", f"127.0.0.1:{port}"]):
        with (tmp_path / f"node{len(started)}.log").open("w") as log:
            started.append(
                subprocess.Popen(
                    [ray, "start", *words, *common], env=env, stdout=log, stderr=log, start_new_session=True
                )
            )
        _wait_for(lambda: "Ray runtime started" in (tmp_path / f"node{len(started) - 1}.log").read_text())
    yield f"127.0.0.1:{port}", env, started[1]
    for process in reversed(started):
        _end(process, signal.SIGTERM)


def _wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def _end(process: subprocess.Popen, number: int) -> None:
    """Sends a signal to a node: `ray start` and all processes below it."""
    import psutil

    if process.poll() is not None:
        return
    of_node = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for one in of_node:
        try:
            one.send_signal(number)
        except psutil.NoSuchProcess:
            continue
    process.wait(60)


def test_a_node_that_is_lost_loses_no_picture(tmp_path, cluster):
    address, env, second = cluster
    export_color_net(tmp_path / "export")
    (tmp_path / "photos").mkdir()
    rng = np.random.default_rng(0)
    for i in range(_PICTURES):
        picture = cv2.resize(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8), (1500, 1000))
        cv2.imwrite(str(tmp_path / "photos" / f"a{i:02d}.png"), picture)
    flags = ["--config", str(tmp_path / "export"), "--image_path", str(tmp_path / "photos")]
    assert infer.main([*flags, "--save_dir", str(tmp_path / "infer"), "--no_overlay"]) == 0

    out = tmp_path / "out"
    words = [*flags, "--save_dir", str(out), "--chunk_size", "1", "--address", address, "--actors", "2"]
    with (tmp_path / "run.log").open("w") as log:
        run = subprocess.Popen(
            [sys.executable, "-m", "paddle_dnl", "predict-dataset", *words], env=env, stdout=log, stderr=log
        )
    _wait_for(lambda: len(list(out.glob("*.png"))) >= 4)
    _end(second, signal.SIGKILL)
    there = len(list(out.glob("*.png")))
    status, said = run.wait(240), (tmp_path / "run.log").read_text()
    assert status == 0 and f"{_PICTURES} pictures predicted" in said and "Traceback" not in said, said
    assert there < _PICTURES - 4  # the node was lost in the middle
    expected = {path.name: path.read_bytes() for path in (tmp_path / "infer").rglob("*.png")}
    assert {path.name: path.read_bytes() for path in out.glob("*.png")} == expected
