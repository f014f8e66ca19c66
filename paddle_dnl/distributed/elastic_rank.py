# SPDX-License-Identifier: Apache-2.0
"""Runs one rank of an elastic job: `python -m paddle_dnl.distributed.elastic_rank COMMAND...`.

Paddle's elastic launcher starts the ranks of the machines that are left again when etcd tells it that a machine is gone, which
takes up to ten seconds. But the ranks notice at once and end, and the launcher takes the end of its own rank for a failure, after
which it renews its lease with etcd no more and gives up. So the end of a rank is kept from it for a while: this process waits
until the launcher, which has heard from etcd by then, ends it as it ends all ranks before it starts them again. When nothing is
heard no machine was lost but a program has failed, which would fail again: this process then asks the launcher to end.
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
    """Runs a command, hands signals on to it, and keeps its failure back; its exit status, 128 plus the number for a signal.

    Args:
        words: the command.
        launcher: its process number.
        hold_seconds: how long a failure is kept back, unless a signal comes.
    """
    environment = {**os.environ, ELASTIC: "1"}
    if threads.is_of_launcher():  # the child asks its parent, which this process is
        del environment[threads.VARIABLE]
    own = os.getpid()
    child_processes.signal_on_parent_death(signal.SIGTERM)
    signals: list[int] = []
    # It ends with this process, which the launcher kills when a save takes longer than 30 s.
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
        _wait_for(signals, _ANSWER_SECONDS)  # an end before the launcher's answer would be a failure again
    return 128 - status if status < 0 else status


def _wait_for(signals: list[int], seconds: float) -> None:
    """Waits until the list, which a signal handler fills, is not empty, at most some seconds."""
    until = time.monotonic() + seconds
    while not signals and time.monotonic() < until:
        time.sleep(0.2)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:], os.getppid()))
