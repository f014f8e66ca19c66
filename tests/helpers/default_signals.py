# SPDX-License-Identifier: Apache-2.0
"""Programs of tests start with the default reactions to signals, also below nohup, and get none before they have handlers."""

import signal
import subprocess
import time
from pathlib import Path


def default_signals() -> None:
    """For `preexec_fn`: nohup and background jobs hand down signals that are ignored."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def wait_for_handlers(process: subprocess.Popen, seconds: float = 60) -> None:
    """Waits until a program catches SIGTERM, which on a busy machine takes a while, or has ended.

    SIGINT would not tell: Python catches it from its beginning.
    """
    until = time.monotonic() + seconds
    while process.poll() is None:
        status = Path(f"/proc/{process.pid}/status").read_text()
        caught = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt"))
        if int(caught, 16) >> (signal.SIGTERM - 1) & 1:
            return
        assert time.monotonic() < until, f"no handler of SIGTERM after {seconds} s"
        time.sleep(0.01)
