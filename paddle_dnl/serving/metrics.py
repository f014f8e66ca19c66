# SPDX-License-Identifier: Apache-2.0
"""Prometheus metrics, served at /metrics."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """Counters of one service, in a registry of their own so that two services in one process do not mix."""

    def __init__(self):
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = Counter(
            "segmentation_requests", "Answered requests", ["endpoint", "status"], registry=self.registry
        )
        self._seconds = Histogram(
            "segmentation_request_seconds",
            "From the start of a request to its answer",
            ["endpoint"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._backend = Histogram(
            "segmentation_backend_seconds", "One run of the backend", buckets=_SECONDS, registry=self.registry
        )
        self._batch = Histogram(
            "segmentation_batch_pictures",
            "Pictures per run",
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=self.registry,
        )

    def gauge(self, name: str, text: str, read) -> None:
        """A value that is read at each scrape."""
        Gauge(f"segmentation_{name}", text, registry=self.registry).set_function(read)

    def answered(self, endpoint: str, status: int, seconds: float) -> None:
        """Counts a request."""
        self._requests.labels(endpoint, str(status)).inc()
        self._seconds.labels(endpoint).observe(seconds)

    def ran(self, pictures: int, seconds: float) -> None:
        """Counts a run of the backend."""
        self._backend.observe(seconds)
        self._batch.observe(pictures)

    def text(self) -> bytes:
        """All of it in Prometheus's format."""
        return generate_latest(self.registry)
