"""Pictures that wait for the engine, and the thread that feeds it: what has one size and waits together runs together."""

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future

import numpy as np


class BatchQueue:
    """Runs inputs `[C, H, W]` in batches, in the order they came.

    The first input that waits is always in the next batch; others of its size join it, those of other sizes wait for
    their turn. An input whose future has been cancelled is dropped.

    Args:
        run: batch `[N, C, H, W]` to output `[N, ...]`; called from one thread.
        max_batch: inputs per run.
        wait_seconds: how long an incomplete batch waits for more, from the moment its first input could run.
        observe: told the size and seconds of each run that succeeded.
    """

    def __init__(
        self,
        run: Callable[[np.ndarray], np.ndarray],
        max_batch: int,
        wait_seconds: float,
        observe: Callable[[int, float], None] = lambda size, seconds: None,
    ):
        self._run, self._max_batch, self._wait, self._observe = run, max_batch, wait_seconds, observe
        self._waiting: deque[tuple[np.ndarray, Future]] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._work, name="batches", daemon=True)
        self._thread.start()

    def submit(self, tensor: np.ndarray) -> Future:
        """A future of the input's output.

        Raises:
            RuntimeError: after `stop`.
        """
        future: Future = Future()
        with self._changed:
            if self._stopping:
                raise RuntimeError("the queue has been stopped")
            self._waiting.append((tensor, future))
            self._changed.notify_all()
        return future

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Finishes what waits and ends the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join()

    def _matching(self) -> int:
        """How many of the waiting inputs could run with the first."""
        shape = self._waiting[0][0].shape
        return sum(tensor.shape == shape for tensor, _ in self._waiting)

    def _take(self) -> list[tuple[np.ndarray, Future]]:
        """The next batch; empty at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._stopping)
            if not self._waiting:
                return []
            until = time.monotonic() + self._wait
            while self._matching() < self._max_batch and not self._stopping:
                left = until - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    break
            shape, batch, others = self._waiting[0][0].shape, [], deque()
            for item in self._waiting:
                fits = len(batch) < self._max_batch and item[0].shape == shape
                (batch if fits else others).append(item)
            self._waiting = others
            return batch

    def _work(self) -> None:
        while batch := self._take():
            batch = [(tensor, future) for tensor, future in batch if future.set_running_or_notify_cancel()]
            if not batch:
                continue
            began = time.perf_counter()
            try:
                outputs = self._run(np.stack([tensor for tensor, _ in batch]))
            except Exception as error:  # belongs to those who wait for this batch, the next one may go well
                for _, future in batch:
                    future.set_exception(error)
                continue
            self._observe(len(batch), time.perf_counter() - began)
            for (_, future), output in zip(batch, outputs, strict=True):
                future.set_result(output)
