"""SIGTERM and SIGINT as a wish to save and end."""

import os
import signal
import time

from paddle_dnl.engine import distributed

import numpy as np

_WORKER_SECONDS = 60


class StopSignal:
    """Notes SIGTERM and SIGINT, so that the run can save and end between two steps.

    SIGTERM may come several times (the launcher sends it three times within a second). SIGINT from a person who asks
    again, a second later, ends the process without saving. Data loading processes inherit the handler and go on, since the
    terminal and the launcher signal them too: without them the training could not finish its step. They end with the
    training, or after a minute.
    """

    def __init__(self):
        self._process, self._first = os.getpid(), None
        self._before = {}
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._note)

    @property
    def seen(self) -> bool:
        """Whether this process was asked to stop."""
        return self._first is not None

    def _note(self, number, frame) -> None:
        if os.getpid() != self._process:
            signal.alarm(_WORKER_SECONDS)
            return
        if self._first is None:
            self._first = time.monotonic()
        elif number == signal.SIGINT and time.monotonic() - self._first > 1:
            raise KeyboardInterrupt

    def received(self) -> bool:
        """Whether any rank was asked to stop; all ranks get the same answer."""
        return bool(distributed.all_reduce_sum(np.array([int(self.seen)]))[0])

    def restore(self) -> None:
        """Puts the handlers back that were there before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
