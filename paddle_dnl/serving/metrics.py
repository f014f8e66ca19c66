# SPDX-License-Identifier: Apache-2.0
"""Prometheus metrics, served at /metrics."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """Metrics of one service, with a separate registry, because a process may run several services."""

    def __init__(self):
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = Counter(
            "segmentation_requests", "Answered requests", ["endpoint", "model", "status"], registry=self.registry
        )
        self._seconds = Histogram(
            "segmentation_request_seconds",
            "From the start of a request to its answer",
            ["endpoint"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._backend = Histogram(
            "segmentation_backend_seconds",
            "One run of the backend",
            ["model"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._batch = Histogram(
            "segmentation_batch_pictures",
            "Pictures per run",
            ["model"],
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=self.registry,
        )
        self._queue = Gauge(
            "segmentation_queue_length", "Pictures that wait for the backend", ["model"], registry=self.registry
        )

    def queue_length(self, model: str, read) -> None:
        """Sets the gauge of the inputs that wait for a model; `read` is called at each scrape."""
        self._queue.labels(model).set_function(read)

    def gauge(self, name: str, text: str, read) -> None:
        """Adds a gauge; `read` is called at each scrape."""
        Gauge(f"segmentation_{name}", text, registry=self.registry).set_function(read)

    def answered(self, endpoint: str, model: str, status: int, seconds: float) -> None:
        """Counts a request; `model` is empty for routes without a model."""
        self._requests.labels(endpoint, model, str(status)).inc()
        self._seconds.labels(endpoint).observe(seconds)

    def ran(self, model: str, pictures: int, seconds: float) -> None:
        """Counts a run of a model's backend."""
        self._backend.labels(model).observe(seconds)
        self._batch.labels(model).observe(pictures)

    def text(self) -> bytes:
        """Returns all metrics in Prometheus's text format."""
        return generate_latest(self.registry)
