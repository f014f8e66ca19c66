# SPDX-License-Identifier: Apache-2.0
"""`benchmarks/run.py --peer PATH`: both sides run with that checkout before the installed package, and the results name it."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def run(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import run as module

    yield module
    del sys.modules["run"]


@pytest.mark.paddleseg
def test_the_checkout_goes_first(run, tmp_path, monkeypatch):
    (tmp_path / "PaddleSeg/paddleseg").mkdir(parents=True)
    (tmp_path / "PaddleSeg/paddleseg/__init__.py").write_text("__version__ = '7'\n")
    peer = run.checkout(str(tmp_path / "PaddleSeg"))
    seen = []
    done = SimpleNamespace(returncode=0, stdout='{"seconds": [1.0], "base": 0, "peak": 1}')
    monkeypatch.setattr(run.subprocess, "run", lambda command, env, **_: seen.append((command, env)) or done)
    case = SimpleNamespace(title="x", time_target=1, memory_target=1, above_base=False, peer_default=True)
    row = run.compare("x", case, 1, 1, 2, False, peer)
    assert row["time_ratio"] == 1 and len(seen) == 3
    for _, environment in seen:
        monkeypatch.undo()
        found = subprocess.run([sys.executable, "-c", "import paddleseg; print(paddleseg.__version__)"],
                               env=environment, capture_output=True, text=True)  # fmt: skip
        assert found.stdout == "7\n"
    assert run.version_of(peer).startswith("PaddleSeg PaddleSeg") and run.version_of(None) == "paddleseg 2.8.0"


def test_no_checkout_is_said():
    words = [sys.executable, str(ROOT / "benchmarks/run.py"), "evaluate", "--peer", "nowhere"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 2 and "nowhere: no checkout of PaddleSeg" in done.stderr
