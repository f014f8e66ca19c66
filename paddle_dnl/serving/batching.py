# SPDX-License-Identifier: Apache-2.0
"""Dynamic batching: waiting inputs of the same size run as one batch."""

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np


@dataclass(eq=False)
class _Waiting:
    """One input, the future of its output, and a callback for when the queue no longer holds the input."""

    tensor: np.ndarray
    release: Callable[[], None]
    future: Future = field(default_factory=Future)


class BatchQueue:
    """Runs inputs `[C, H, W]` in batches.

    A batch contains the input that has waited longest, and others of the same size in order of arrival.

    Args:
        run: function from a batch `[N, C, H, W]` to the output `[N, ...]`; called from one thread.
        max_batch: maximum number of inputs per run.
        wait_seconds: time that an incomplete batch waits for more inputs, from the moment its first input could run.
        observe: called with the size and seconds of each successful run.
    """

    def __init__(
        self,
        run: Callable[[np.ndarray], np.ndarray],
        max_batch: int,
        wait_seconds: float,
        observe: Callable[[int, float], None] = lambda size, seconds: None,
    ):
        self._run, self._max_batch, self._wait, self._observe = run, max_batch, wait_seconds, observe
        self._waiting: deque[_Waiting] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._work, name="batches", daemon=True)
        self._thread.start()

    def submit(self, tensor: np.ndarray, release: Callable[[], None] = lambda: None) -> Future:
        """Adds an input to the queue and returns a future of its output.

        Args:
            tensor: `[C, H, W]`.
            release: called once, from any thread, when the queue no longer holds `tensor`: after its run or its
                withdrawal. Until then its memory is in use, even if nobody waits for the output.

        Raises:
            RuntimeError: after `stop`; `release` is not called.
        """
        item = _Waiting(tensor, release)
        with self._changed:
            if self._stopping:
                raise RuntimeError("the queue has been stopped")
            self._waiting.append(item)
            self._changed.notify_all()
        return item.future

    def withdraw(self, future: Future) -> None:
        """Removes an input from the queue; does nothing for an input that is already running."""
        with self._changed:
            found = [item for item in self._waiting if item.future is future]
            for item in found:
                self._waiting.remove(item)
        for item in found:
            item.future.cancel()
            item.release()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def alive(self) -> bool:
        """Whether the thread of the queue is running."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Runs the waiting inputs and ends the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join()

    def _matching(self) -> list[_Waiting]:
        """Returns the first waiting input and those that can run with it."""
        same_size = (item for item in self._waiting if item.tensor.shape == self._waiting[0].tensor.shape)
        return list(itertools.islice(same_size, self._max_batch))

    def _take(self) -> list[_Waiting]:
        """Returns the next batch; empty after `stop`."""
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._waiting or self._stopping)
                until = time.monotonic() + self._wait
                while self._waiting and len(self._matching()) < self._max_batch and not self._stopping:
                    left = until - time.monotonic()
                    if left <= 0 or not self._changed.wait(left):
                        break
                if self._waiting or self._stopping:
                    break  # otherwise all waiting inputs were withdrawn
            batch = self._matching()
            self._waiting = deque(item for item in self._waiting if item not in batch)
            return batch

    def _work(self) -> None:
        while batch := self._take():
            began = time.perf_counter()
            wanted = [item for item in batch if item.future.set_running_or_notify_cancel()]
            try:
                outputs = self._run(np.stack([item.tensor for item in wanted])) if wanted else []
            except Exception as error:  # affects only this batch; the next one may succeed
                for item in wanted:
                    item.future.set_exception(error)
            else:
                if wanted:
                    self._observe(len(wanted), time.perf_counter() - began)
                for item, output in zip(wanted, outputs, strict=True):
                    item.future.set_result(output)
            for item in batch:
                item.release()
            del batch, wanted
