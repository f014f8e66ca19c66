# SPDX-License-Identifier: Apache-2.0
"""Child processes end with the object that owns them, and only where they were started."""

import gc
import multiprocessing
import os
import signal
import subprocess
import sys

from paddle_dnl.startup import child_processes

import pytest


class _Owner:
    """Has a process that is killed when it is collected."""

    def __init__(self):
        self.process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
        child_processes.at_end_of(self, os.kill, self.process.pid, signal.SIGKILL)


def test_a_process_ends_with_its_owner_but_not_with_a_forked_copy_of_it():
    owner = _Owner()
    process = owner.process
    copy = os.fork()
    if copy == 0:
        del owner
        gc.collect()
        os._exit(0)
    assert os.waitpid(copy, 0)[1] == 0
    assert process.poll() is None
    del owner
    gc.collect()
    assert process.wait(10) == -signal.SIGKILL


def _obey(parent: int) -> None:
    child_processes.leave_signals_to_parent()
    os._exit(7 if not signal.pthread_sigmask(signal.SIG_BLOCK, ()) else 8)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_process_that_starts_leaves_signals_to_its_parent(number, capfd):
    process = multiprocessing.get_context("spawn").Process(target=_obey, args=(os.getpid(),))
    child_processes.start(process)
    os.kill(process.pid, number)  # while Python starts in it
    process.join(60)
    assert process.exitcode == 7 and "Traceback" not in capfd.readouterr().err
