# SPDX-License-Identifier: Apache-2.0
"""Limits that uvicorn lacks: number of open connections, time for a request's header, rate of log lines."""

import logging
import time
from collections import Counter
from collections.abc import Callable

from uvicorn.protocols.http.h11_impl import H11Protocol


class ConnectionLimits:
    """Counts open connections, in total and per client address.

    Args:
        total: maximum number of open connections.
        per_client: maximum number of open connections per address; 0: no limit.
        header_seconds: time limit for the arrival of a request's header.
    """

    def __init__(self, total: int, per_client: int, header_seconds: float):
        self.total, self.per_client, self.header_seconds = total, per_client, header_seconds
        self.open: Counter[str] = Counter()

    def admit(self, client: str) -> bool:
        """Counts a new connection; False if it exceeds a limit and must be closed."""
        self.open[client] += 1
        return self.open.total() <= self.total and not 0 < self.per_client < self.open[client]

    def closed(self, client: str) -> None:
        """Counts the end of a connection."""
        self.open[client] -= 1
        if not self.open[client]:
            del self.open[client]


def limited_protocol(limits: ConnectionLimits) -> type[H11Protocol]:
    """Returns uvicorn's HTTP/1.1 protocol class with these limits."""

    class Limited(H11Protocol):
        _timer = None

        def connection_made(self, transport) -> None:
            super().connection_made(transport)
            self._address = self.client[0] if self.client else ""
            if limits.admit(self._address):
                self._await_header()
            else:
                transport.abort()

        def connection_lost(self, exc) -> None:
            limits.closed(self._address)
            self._stop_timer()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self._is_answering():
                self._stop_timer()
            elif self._timer is None:  # the first bytes of a further request on this connection
                self._await_header()

        def _is_answering(self) -> bool:
            return self.cycle is not None and not self.cycle.response_complete

        def _await_header(self) -> None:
            self._timer = self.loop.call_later(limits.header_seconds, self._too_slow)

        def _stop_timer(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _too_slow(self) -> None:
            self._timer = None
            if not self._is_answering() and self.transport is not None:
                self.transport.abort()

    return Limited


class RateLimit(logging.Filter):
    """Passes equal log messages at most once per interval, with the number of messages suppressed since.

    Args:
        seconds: interval.
        clock: monotonic time in seconds.
    """

    _MAX_TEXTS = 1000

    def __init__(self, seconds: float = 10, clock: Callable[[], float] = time.monotonic):
        super().__init__()
        self._seconds, self._clock = seconds, clock
        self._seen: dict[str, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the message is logged."""
        text, now = str(record.msg), self._clock()
        since, left_out = self._seen.get(text, (-self._seconds, 0))
        if now - since < self._seconds:
            self._seen[text] = (since, left_out + 1)
            return False
        if len(self._seen) >= self._MAX_TEXTS:
            self._seen.clear()
        self._seen[text] = (now, 0)
        if left_out:
            record.msg = f"{record.getMessage()} ({left_out} more like it since)"
            record.args = ()
        return True
