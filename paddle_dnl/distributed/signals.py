# SPDX-License-Identifier: Apache-2.0
"""SIGTERM and SIGINT as a request to save and end."""

import os
import signal
import time

from paddle_dnl.errors import DistributedError
from paddle_dnl.log import logger

ELASTIC = "PADDLE_DNL_ELASTIC"  # set for the ranks of an elastic job
_REPEATED_SECONDS = 1.0


class OtherMachineStopped(DistributedError):
    """The run has stopped for a signal to another machine; Paddle's elastic launcher would take exit status 0 for the end."""


class StopSignal:
    """Records SIGTERM and SIGINT, so that the run can save and end between two steps.

    SIGTERM may come several times (the launcher sends up to three within a second). A second SIGINT more than a second after
    the first signal ends the process without saving.
    """

    def __init__(self):
        self._first: float | None = None
        self._before = {}
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._note)
            # Paddle's store gives up when a signal interrupts its receive, so system calls are restarted.
            signal.siginterrupt(number, False)

    @property
    def seen(self) -> bool:
        """Whether this process was asked to stop; other ranks may not have been asked."""
        return self._first is not None

    def announce(self, iteration: int) -> None:
        """Logs that the run has stopped.

        Raises:
            OtherMachineStopped: in a rank of an elastic job whose own machine goes on.
        """
        logger.warning(f"stopped by signal at iter {iteration}; --resume_model auto continues")
        if ELASTIC in os.environ and not self.seen:
            raise OtherMachineStopped(
                f"another machine was asked to stop at iter {iteration}; the launcher starts those that are left again"
            )

    def _note(self, number, frame) -> None:
        if self._first is None:
            self._first = time.monotonic()
        elif number == signal.SIGINT and time.monotonic() - self._first > _REPEATED_SECONDS:
            raise KeyboardInterrupt

    def restore(self) -> None:
        """Restores the previous handlers, after waiting for repeated signals of the same request."""
        if self._first is not None:
            time.sleep(max(0.0, self._first + _REPEATED_SECONDS - time.monotonic()))
        for number, handler in self._before.items():
            signal.signal(number, handler)
            if callable(handler):
                signal.siginterrupt(number, False)
