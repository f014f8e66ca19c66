"""SIGTERM and SIGINT as a wish to save and end."""

import signal
import time

from paddle_dnl.distributed import collectives

import numpy as np

_REPEATED_SECONDS = 1.0


class StopSignal:
    """Notes SIGTERM and SIGINT, so that the run can save and end between two steps.

    SIGTERM may come several times (the launcher sends it three times within a second). SIGINT from a person who asks
    again, a second later, ends the process without saving.
    """

    def __init__(self):
        self._first: float | None = None
        self._before = {}
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._note)

    @property
    def seen(self) -> bool:
        """Whether this process was asked to stop."""
        return self._first is not None

    def _note(self, number, frame) -> None:
        if self._first is None:
            self._first = time.monotonic()
        elif number == signal.SIGINT and time.monotonic() - self._first > _REPEATED_SECONDS:
            raise KeyboardInterrupt

    def received(self) -> bool:
        """Whether any rank was asked to stop; all ranks get the same answer."""
        return bool(collectives.all_reduce_sum(np.array([int(self.seen)]))[0])

    def restore(self) -> None:
        """Puts the handlers back that were there before, when signals that say the same again have come too."""
        if self._first is not None:
            time.sleep(max(0.0, self._first + _REPEATED_SECONDS - time.monotonic()))
        for number, handler in self._before.items():
            signal.signal(number, handler)
