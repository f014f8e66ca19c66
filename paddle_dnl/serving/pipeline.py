# SPDX-License-Identifier: Apache-2.0
"""The steps of a request: admission, decoding, preprocessing, a batch of the backend, the answer.

Bytes are cheap to keep, pixels are not. So up to `queue_size` requests are admitted, but only three batches' worth of decoded
pictures exist at a time: one that runs, one that waits behind it, and one that is being read or written. A place among them
belongs to the pixels and is given back when they are gone, not when the client is.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from paddle_dnl.deployment.runtime.predictor import Predictor, Tiled
from paddle_dnl.errors import DataError, ExportError
from paddle_dnl.log import logger

import numpy as np

from .batching import BatchQueue
from .decoding import DecodePool
from .metrics import Metrics
from .refusal import Refusal
from .results import ClassNames
from .settings import Settings

# Height times width times classes of an answer with probabilities: 200 MB as float32.
MAX_PROBABILITIES = 50_000_000


@dataclass
class Work:
    """What one request needs, and the milliseconds of each step."""

    finish: Callable[[np.ndarray, np.ndarray | None], bytes]
    needs_picture: bool = False
    needs_scores: bool = False
    milliseconds: dict[str, float] = field(default_factory=dict)
    future: Future | None = None
    wanted: bool = True

    def require_wanted(self) -> None:
        """Ends the work when its client has left.

        Raises:
            Refusal: 499.
        """
        if not self.wanted:
            raise Refusal(499, "the client left")

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
        fixed = predictor.files.fixed_batch
        self.max_batch = fixed * predictor.parallel if fixed else settings.max_batch
        # Waiting for more pictures is of no use to a model that takes one at a time.
        wait = settings.batch_wait_ms / 1000 if self.max_batch > 1 else 0
        self.queue = BatchQueue(predictor.run, self.max_batch, wait, metrics.ran)
        self.decoders = DecodePool(
            settings.workers, settings.decode_seconds, predictor.image_format, settings.max_pixels
        )
        self._pool = ThreadPoolExecutor(settings.workers, thread_name_prefix="pictures")
        self._pixel_slots = asyncio.Semaphore(3 * self.max_batch)
        self._inside = self._receiving = 0
        self._stopping = False
        metrics.gauge("requests_inside", "Admitted requests", lambda: self._inside)
        metrics.gauge("receiving_bytes", "Bytes of requests that are still arriving", lambda: self._receiving)
        metrics.gauge("queue_length", "Pictures that wait for the backend", lambda: len(self.queue))

    @property
    def ready(self) -> bool:
        """Whether requests can be answered."""
        return self.queue.alive and not self._stopping

    def arrived(self, count: int) -> None:
        """Counts bytes of requests that are not admitted yet; negative when they are admitted or given up.

        Raises:
            Refusal: together they would take more memory than the admitted requests may.
        """
        if count > 0 and self._receiving + count > self._settings.queue_size * self._settings.max_request_bytes:
            raise Refusal(429, "too many pictures are arriving at the same time; try again", retry_after=1)
        self._receiving += count

    @contextlib.contextmanager
    def admission(self):
        """A place among the admitted requests, for one whose body has arrived.

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
        """What `work.finish` makes of the label map `[H, W]` and the picture where it needs it.

        Raises:
            Refusal: a picture that cannot be used, or a backend that failed.
        """
        with work.step("queue"):
            await self._pixel_slots.acquire()
        steps = asyncio.ensure_future(self._steps(content, work))
        try:
            # A thread that decodes cannot be interrupted, so the steps go on and give their place back themselves.
            return await asyncio.shield(steps)
        except asyncio.CancelledError:
            steps.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody is left to hear it
            if (future := work.future) is not None:
                self.queue.withdraw(future)
            work.wanted = False
            raise
        except DataError as error:
            raise Refusal(422, str(error)) from error
        except ExportError as error:
            logger.error(f"a batch failed: {error}")
            raise Refusal(500, f"the model failed: {error}") from error

    async def _steps(self, content: bytes, work: Work) -> bytes:
        """All steps of a request that holds a place; gives it back when its pixels are gone."""
        loop = asyncio.get_running_loop()
        try:
            with work.step("read"):
                tensor, info, picture = await self._in_thread(
                    self._prepare, content, work.needs_picture, work.needs_scores
                )
            work.require_wanted()
            if isinstance(tensor, Tiled):
                with work.step("run"):
                    output = await self._in_thread(self._run_tiles, tensor, work)
                with work.step("write"):
                    return await self._in_thread(self._finish, output, info, picture, work)
            with work.step("run"):
                gone = asyncio.Event()
                work.future = self.queue.submit(tensor, lambda: loop.call_soon_threadsafe(gone.set))
                del tensor
                try:
                    output = await asyncio.wrap_future(work.future)
                finally:
                    await gone.wait()
            work.require_wanted()
            with work.step("write"):
                return await self._in_thread(self._finish, output, info, picture, work)
        finally:
            self._pixel_slots.release()

    async def _in_thread(self, function, *args):
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *args)

    def _prepare(self, content: bytes, needs_picture: bool, needs_scores: bool):
        picture = self.decoders.decode(content)
        values = picture.shape[0] * picture.shape[1] * len(self.classes.names)
        if needs_scores and values > MAX_PROBABILITIES:
            raise Refusal(
                413, f"{values} probabilities for this picture; {MAX_PROBABILITIES} are allowed, send a smaller one"
            )
        tensor, info = self.predictor.prepare(picture, "picture")
        return tensor, info, picture if needs_picture else None

    def _run_tiles(self, picture: Tiled, work: Work) -> np.ndarray:
        """Tiles queue one after another, so that other pictures get their turn between them."""

        def run(batch: np.ndarray) -> list[np.ndarray]:
            work.require_wanted()
            return [future.result() for future in [self.queue.submit(tensor) for tensor in batch]]

        return self.predictor.run_tiled(picture, run, with_scores=work.needs_scores)

    def _finish(self, output: np.ndarray, info: list, picture: np.ndarray | None, work: Work) -> bytes:
        if work.needs_scores:
            return work.finish(self.predictor.probabilities(output, info), picture)
        return work.finish(self.predictor.postprocess(output, info), picture)

    def stop(self) -> None:
        """Refuses new requests, finishes the admitted ones."""
        self._stopping = True
        self.queue.stop()
        self._pool.shutdown()
        self.decoders.close()
