# SPDX-License-Identifier: Apache-2.0
"""Signals that end a program."""

import subprocess
import sys
from pathlib import Path

import pytest
from default_signals import default_signals

ROOT = Path(__file__).resolve().parents[2]
# As Paddle's and OpenCV's: an exception in it is reported as a library that cannot be imported.
LIBRARY = """
import os, signal, sys
try:
    os.kill(os.getpid(), signal.{name})
    for _ in range(1000):
        pass
except BaseException:
    sys.stderr.write("Error: Can not import paddle core\\n")
    raise
"""
PROGRAM = """
import sys
sys.path.insert(0, {root!r})
from paddle_dnl.startup import termination
sys.path.insert(0, {folder!r})
termination.install()
try:
    import {library}
    print("goes on")
except termination.Terminated as error:
    print(termination.describe(error.number))
"""


def _require_one_line(program: str, status: int) -> None:
    """Runs a program that prints what `termination.describe` says, and nothing else."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=default_signals,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout.endswith(f", {status})\n") and done.stdout.count("\n") == 1


@pytest.mark.parametrize("library", ["paddle", "cv2"])
@pytest.mark.parametrize("name, status", [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_signal_while_a_library_is_loaded_is_one_line(tmp_path, name, status, library):
    (tmp_path / "cv2.py").write_text(LIBRARY.format(name=name))
    (tmp_path / "paddle/base").mkdir(parents=True)
    (tmp_path / "paddle/__init__.py").write_text("from paddle import base")
    (tmp_path / "paddle/base/__init__.py").write_text("from paddle.base import core")
    (tmp_path / "paddle/base/core.py").write_text(LIBRARY.format(name=name))
    _require_one_line(PROGRAM.format(root=str(ROOT), folder=str(tmp_path), library=library), status)


IGNORED = """
import os, signal, sys, time
sys.path.insert(0, {root!r})
from paddle_dnl.startup import termination
class Owner:
    def __del__(self):  # Python prints exceptions of these and goes on, as those of importlib's callbacks
        os.kill(os.getpid(), signal.{name})
        for _ in range(1000):
            pass
termination.install()
try:
    Owner()
    time.sleep(20)
    print("goes on")
except termination.Terminated as error:
    print(termination.describe(error.number))
"""


@pytest.mark.parametrize("name, status", [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_signal_in_a_finalizer_takes_effect_after_it(name, status):
    _require_one_line(IGNORED.format(root=str(ROOT), name=name), status)
