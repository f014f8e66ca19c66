# SPDX-License-Identifier: Apache-2.0
"""An import leaves the process as it is; programs set it up and say nothing of it."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def _run(*words: str, **environment: str) -> subprocess.CompletedProcess:
    given = {name: value for name, value in os.environ.items() if name not in ("OMP_NUM_THREADS", "MKL_DEBUG_CPU_TYPE")}
    return subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, env={**given, **environment}, cwd=ROOT
    )


def test_import_changes_nothing():
    """Neither variables, nor streams, nor the allocator (whose function is called by name)."""
    program = (
        "import os, sys, ctypes; before = dict(os.environ), sys.stderr, sys.stdout\n"
        "class Library(ctypes.CDLL):\n"
        "    def __getattr__(self, name):\n"
        "        assert name != 'mallopt'; return super().__getattr__(name)\n"
        "ctypes.CDLL = Library\n"
        "import paddle_dnl\n"
        "assert before == (dict(os.environ), sys.stderr, sys.stdout)"
    )
    done = _run("-c", program)
    assert done.returncode == 0, done.stderr


def test_programs_start_without_paddles_warning():
    """Paddle prints two lines to stderr with more than one thread; other text there stays, and stderr comes back."""
    configure = "from paddle_dnl import startup; startup.configure_process(); "
    program = (
        "import sys; before = sys.stderr; {}import paddle; print('kept', file=sys.stderr); print(sys.stderr is before)"
    )
    warned = _run("-c", program.format(""), OMP_NUM_THREADS="2")
    assert "OMP_NUM_THREADS" in warned.stderr, "nothing to leave out: the filter can go"
    quiet = _run("-c", program.format(configure), OMP_NUM_THREADS="2")
    assert "OMP_NUM_THREADS" not in quiet.stderr and quiet.stderr.endswith("kept\n"), quiet.stderr
    assert quiet.stdout.strip() == "True"
