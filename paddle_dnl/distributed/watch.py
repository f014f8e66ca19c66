# SPDX-License-Identifier: Apache-2.0
"""Client of the watchdog (`distributed/watchdog`), in the training process."""

import atexit
import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from paddle_dnl.distributed.watchdog.reports import COMMUNICATION as COMMUNICATION
from paddle_dnl.errors import PaddleDnlError

_START = "import sys; sys.path.insert(0, sys.argv.pop(1)); from watchdog.main import main; main()"


class OtherRankEnded(PaddleDnlError):
    """Another rank has ended or failed. The watchdog of this process has printed which one and why."""


_watchdog: subprocess.Popen | None = None
_others_ended = False
_synchronised = 0


def start(rank: int, ranks: int, host: str, hub_address: str, agree: Callable[[object], object]) -> None:
    """Starts this process's watchdog.

    Args:
        rank: rank of this process.
        ranks: number of ranks.
        host: name of this machine for messages.
        hub_address: address at which other machines reach the machine of rank 0.
        agree: returns rank 0's argument on all processes.
    """
    global _watchdog
    server, offer = None, None
    if rank == 0:
        server = socket.create_server(("", 0), backlog=1024)
        offer = (server.getsockname()[1], os.urandom(16).hex())
    port, token = agree(offer)
    handle = -1 if server is None else server.fileno()
    _watchdog = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _START, str(Path(__file__).parent)]
        + [str(rank), str(ranks), str(os.getpid()), host]
        + ["127.0.0.1" if rank == 0 else hub_address, str(port), str(handle)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
        start_new_session=True,
        pass_fds=() if server is None else (handle,),
    )
    _watchdog.stdin.write(token.encode())
    os.set_blocking(_watchdog.stdout.fileno(), False)
    if server is not None:
        server.close()
    # Data loading processes are forked later; a copy of the pipe in them would hide the end of this process.
    os.register_at_fork(after_in_child=_forget_in_child)
    # The end of a program that does not call `finish` is normal if it has no uncaught exception.
    atexit.register(lambda: None if hasattr(sys, "last_type") else _say("done"))


def is_on() -> bool:
    """Whether this process has a watchdog."""
    return _watchdog is not None


def _forget_in_child() -> None:
    global _watchdog
    if _watchdog is not None:
        _watchdog.stdin.close()
        _watchdog.stdout.close()
        _watchdog = None


def _say(line: str) -> None:
    if _watchdog is not None:
        with contextlib.suppress(OSError, ValueError):
            os.write(_watchdog.stdin.fileno(), (line + "\n").encode("utf-8", "replace"))


def finish() -> None:
    """Ends the monitoring: from here on this process may end before another."""
    global _watchdog
    if _watchdog is not None:
        _say("done")
        _watchdog.stdin.close()
        if _watchdog.args[-1] == "-1":
            _watchdog.wait()  # not on rank 0, whose watchdog still serves the others for a while
        _watchdog = None


def report_failure(text: str) -> None:
    """Tells the other processes why this one is about to end."""
    _say("failed " + " ".join(text.split()))


def reached(what: str) -> None:
    """Reports that this process reached its next synchronisation point, so that a hanging rank can be identified."""
    global _synchronised
    _synchronised += 1
    _say(f"at {_synchronised} {what}")


def others_ended(seconds: float = 0.0) -> bool:
    """Whether the watchdog has reported the end of another rank, or does so within `seconds`."""
    global _others_ended
    until = time.monotonic() + seconds
    while _watchdog is not None and not _others_ended:
        with contextlib.suppress(OSError, ValueError):
            _others_ended = b"ended" in (os.read(_watchdog.stdout.fileno(), 1 << 10) or b"ended")
        if time.monotonic() >= until:
            break
        time.sleep(0.05)
    return _others_ended


def require_others(seconds: float = 0.0) -> None:
    """Raises an error if `others_ended`.

    Raises:
        OtherRankEnded: another rank has ended.
    """
    if others_ended(seconds):
        raise OtherRankEnded("another rank has ended")
