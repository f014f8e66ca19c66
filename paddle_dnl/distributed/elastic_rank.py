# SPDX-License-Identifier: Apache-2.0
"""Runs one rank of an elastic job: `python -m paddle_dnl.distributed.elastic_rank COMMAND...`.

When a machine is lost, etcd tells Paddle's elastic launcher within ten seconds, and the launcher restarts the ranks on the
remaining machines. But the ranks notice the loss at once and end, which the launcher takes for a failure: it stops renewing its
lease with etcd and gives up. So this process hides the end of its rank for a while, until the launcher has heard from etcd and
ends all ranks by a signal before the restart. Without such a signal no machine was lost; the program itself has failed and would
fail again, so this process asks the launcher to end.
"""

import os
import signal
import subprocess
import sys
import time

from paddle_dnl.distributed.signals import ELASTIC
from paddle_dnl.startup import child_processes, threads

HOLD_SECONDS = 45.0  # a lease of 10 s, renewed every 5 s, and the launcher looks every 2 s
_ANSWER_SECONDS = 30.0


def run(words: list[str], launcher: int, hold_seconds: float = HOLD_SECONDS) -> int:
    """Runs a command, forwards signals to it, and delays the report of a failure.

    Args:
        words: the command.
        launcher: process ID of the launcher.
        hold_seconds: how long a failure is hidden, unless a signal arrives.

    Returns:
        Exit status of the command, 128 plus the number of a signal that ended it.
    """
    environment = {**os.environ, ELASTIC: "1"}
    if threads.is_of_launcher():  # the child would ask its parent, which is now this process
        del environment[threads.VARIABLE]
    own = os.getpid()
    child_processes.signal_on_parent_death(signal.SIGTERM)
    signals: list[int] = []
    # The launcher kills this process when a save takes longer than 30 s; the child must not outlive it.
    child = subprocess.Popen(words, env=environment, preexec_fn=lambda: child_processes.die_with(own))

    def hand_on(number, frame):
        signals.append(number)
        if child.poll() is None:
            child.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, hand_on)
    status = child.wait()
    _wait_for(signals, hold_seconds if status else 0)
    if status and not signals:
        os.kill(launcher, signal.SIGTERM)
        _wait_for(signals, _ANSWER_SECONDS)  # ending before the launcher's signal would count as a failure again
    return 128 - status if status < 0 else status


def _wait_for(signals: list[int], seconds: float) -> None:
    """Waits until a signal handler has filled the list, for at most `seconds`."""
    until = time.monotonic() + seconds
    while not signals and time.monotonic() < until:
        time.sleep(0.2)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:], os.getppid()))
