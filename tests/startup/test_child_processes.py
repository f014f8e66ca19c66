# SPDX-License-Identifier: Apache-2.0
"""Child processes end with the object that owns them, and only where they were started."""

import gc
import os
import signal
import subprocess
import sys

from paddle_dnl.startup import child_processes


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
