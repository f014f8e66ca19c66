"""A request's way: admitted or refused, read, prepared, run in a batch, turned into an answer; each step in its place.

Bytes wait cheaply, pixels do not. So up to `queue_size` requests are in the house, but only three batches' worth of them
hold a decoded picture: one that runs, one that waits behind it, and one that is being read or written.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from paddle_dnl.deployment.runtime.predictor import Predictor
from paddle_dnl.errors import DataError, ExportError
from paddle_dnl.log import logger

import numpy as np

from .batching import BatchQueue
from .metrics import Metrics
from .pictures import require_size
from .refusal import Refusal
from .results import ClassNames
from .settings import Settings


@dataclass
class Work:
    """What one request needs, and the milliseconds of each step."""

    finish: Callable[[np.ndarray, np.ndarray | None], bytes]
    needs_picture: bool = False
    milliseconds: dict[str, float] = field(default_factory=dict)

    @contextlib.contextmanager
    def step(self, name: str):
        """Times a step."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.milliseconds[name] = 1000 * (time.perf_counter() - began)


class Pipeline:
    """The service without HTTP.

    Args:
        predictor: the model.
        settings: limits and sizes.
        metrics: is told about runs.
    """

    def __init__(self, predictor: Predictor, settings: Settings, metrics: Metrics):
        self.predictor, self._settings = predictor, settings
        self.classes = ClassNames(predictor.classes)
        self.max_batch = predictor.files.fixed_batch or settings.max_batch
        # Waiting for more pictures is of no use to a model that takes one at a time.
        wait = settings.batch_wait_ms / 1000 if self.max_batch > 1 else 0
        self.queue = BatchQueue(predictor.run, self.max_batch, wait, metrics.ran)
        self._pool = ThreadPoolExecutor(settings.workers, thread_name_prefix="pictures")
        self._pixel_slots = asyncio.Semaphore(3 * self.max_batch)
        self._inside = 0
        self._stopping = False
        metrics.gauge("requests_inside", "Requests in the house", lambda: self._inside)
        metrics.gauge("queue_length", "Pictures that wait for the engine", lambda: len(self.queue))

    @property
    def ready(self) -> bool:
        """Whether requests can be answered."""
        return self.queue.alive and not self._stopping

    @contextlib.contextmanager
    def admission(self):
        """A place in the house.

        Raises:
            Refusal: all are taken, or the service is being stopped.
        """
        if self._stopping:
            raise Refusal(503, "the service is being stopped", retry_after=10)
        if self._inside >= self._settings.queue_size:
            raise Refusal(429, f"all {self._settings.queue_size} places are taken; try again", retry_after=1)
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1

    async def answer(self, content: bytes, work: Work) -> bytes:
        """What `work.finish` makes of the label map, uint8 `[H, W]`, and the picture where it needs it.

        Raises:
            Refusal: a picture that cannot be used, or an engine that failed.
        """
        with work.step("queue"):
            await self._pixel_slots.acquire()
        try:
            with work.step("read"):
                tensor, info, picture = await self._in_thread(self._prepare, content, work.needs_picture)
            with work.step("run"):
                output = await asyncio.wrap_future(self.queue.submit(tensor))
            del tensor
            with work.step("write"):
                return await self._in_thread(self._finish, output, info, picture, work)
        except DataError as error:
            raise Refusal(422, str(error)) from error
        except ExportError as error:
            logger.error(f"a batch failed: {error}")
            raise Refusal(500, f"the model failed: {error}") from error
        finally:
            self._pixel_slots.release()

    async def _in_thread(self, function, *args):
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *args)

    def _prepare(self, content: bytes, needs_picture: bool):
        require_size(content, self._settings.max_pixels)
        picture = self.predictor.decode(content)
        tensor, info = self.predictor.preprocess(picture, "picture")
        return tensor, info, picture if needs_picture else None

    def _finish(self, output: np.ndarray, info: list, picture: np.ndarray | None, work: Work) -> bytes:
        return work.finish(self.predictor.postprocess(output, info), picture)

    def stop(self) -> None:
        """Refuses what comes, finishes what is in the house."""
        self._stopping = True
        self.queue.stop()
        self._pool.shutdown()
