# SPDX-License-Identifier: Apache-2.0
"""Admission control: limits of the requests and bytes that the service holds, over all models."""

import contextlib
from typing import TYPE_CHECKING

from paddle_dnl.serving.metrics import Metrics
from paddle_dnl.serving.refusal import Refusal

if TYPE_CHECKING:
    from paddle_dnl.serving.settings import Settings


class Admission:
    """Counts admitted requests and arriving bytes; used from the event loop only.

    Args:
        settings: `queue_size` and `max_request_bytes`.
        metrics: receives a gauge of each count.

    Attributes:
        inside: number of admitted requests.
        receiving: bytes of requests that are not admitted yet.
        stopping: whether the service has stopped admitting requests.
    """

    def __init__(self, settings: "Settings", metrics: Metrics):
        self._settings = settings
        self.inside = self.receiving = 0
        self.stopping = False
        metrics.gauge("requests_inside", "Admitted requests", lambda: self.inside)
        metrics.gauge("receiving_bytes", "Bytes of requests that are still arriving", lambda: self.receiving)

    def arrived(self, count: int) -> None:
        """Counts received bytes of requests that are not admitted yet.

        Args:
            count: number of bytes; negative when their request is admitted or abandoned.

        Raises:
            Refusal: 429; the arriving requests would exceed the memory limit of the admitted requests.
        """
        if count > 0 and self.receiving + count > self._settings.queue_size * self._settings.max_request_bytes:
            raise Refusal(429, "too many pictures are arriving at the same time; try again", retry_after=1)
        self.receiving += count

    @contextlib.contextmanager
    def place(self):
        """Admits a request whose body has arrived, for the duration of the block.

        Raises:
            Refusal: 429 if the queue is full, 503 if the service is being stopped.
        """
        if self.stopping:
            raise Refusal(503, "the service is being stopped", retry_after=10)
        if self.inside >= self._settings.queue_size:
            raise Refusal(429, f"the queue is full ({self._settings.queue_size} requests); try again", retry_after=1)
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1
