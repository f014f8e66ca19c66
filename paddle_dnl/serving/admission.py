# SPDX-License-Identifier: Apache-2.0
"""Admission: how many requests, and bytes of requests, the service holds at a time, whichever model they are for."""

import contextlib
from typing import TYPE_CHECKING

from paddle_dnl.serving.refusal import Refusal

if TYPE_CHECKING:
    from paddle_dnl.serving.metrics import Metrics
    from paddle_dnl.serving.settings import Settings


class Admission:
    """Places of requests and bytes that are arriving; used from the event loop only.

    Args:
        settings: `queue_size` and `max_request_bytes`.
        metrics: gets a gauge of each.

    Attributes:
        inside: admitted requests.
        receiving: bytes of requests that are not admitted yet.
        stopping: no request is admitted any more.
    """

    def __init__(self, settings: "Settings", metrics: "Metrics"):
        self._settings = settings
        self.inside = self.receiving = 0
        self.stopping = False
        metrics.gauge("requests_inside", "Admitted requests", lambda: self.inside)
        metrics.gauge("receiving_bytes", "Bytes of requests that are still arriving", lambda: self.receiving)

    def arrived(self, count: int) -> None:
        """Counts bytes of requests that are not admitted yet; negative when they are admitted or given up.

        Raises:
            Refusal: together they would take more memory than the admitted requests may.
        """
        if count > 0 and self.receiving + count > self._settings.queue_size * self._settings.max_request_bytes:
            raise Refusal(429, "too many pictures are arriving at the same time; try again", retry_after=1)
        self.receiving += count

    @contextlib.contextmanager
    def place(self):
        """A place among the admitted requests, for one whose body has arrived.

        Raises:
            Refusal: all are taken, or the service is being stopped.
        """
        if self.stopping:
            raise Refusal(503, "the service is being stopped", retry_after=10)
        if self.inside >= self._settings.queue_size:
            raise Refusal(429, f"all {self._settings.queue_size} places are taken; try again", retry_after=1)
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1
