# SPDX-License-Identifier: Apache-2.0
"""The steps of a request to one model: decoding, preprocessing, a batch of the backend, the answer.

Bytes are cheap to keep, pixels are not. So up to `queue_size` requests are admitted (`admission.py`), but only three batches'
worth of decoded pictures of a model exist at a time: one that runs, one that waits behind it, and one that is being read or
written. A place among them belongs to the pixels and is given back when they are gone, not when the client is.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from paddle_dnl.data.images.picture_rows import Tiled
from paddle_dnl.errors import DataError, ExportError
from paddle_dnl.log import logger
from paddle_dnl.serving.batching import BatchQueue
from paddle_dnl.serving.readers import PictureReader, TensorReader, TensorSpec
from paddle_dnl.serving.refusal import Refusal

import numpy as np

if TYPE_CHECKING:
    from paddle_dnl.deployment.runtime.predictor import Predictor
    from paddle_dnl.serving.decoding import DecodePool
    from paddle_dnl.serving.metrics import Metrics
    from paddle_dnl.serving.readers import Asked
    from paddle_dnl.serving.results import ClassNames
    from paddle_dnl.serving.settings import Settings

# Height times width times classes of an answer with probabilities: 200 MB as float32.
MAX_PROBABILITIES = 50_000_000
# Numbers that are written as JSON.
MAX_JSON_NUMBERS = 4_000_000
# The first run of a model with a free size is made with this one.
WARM_UP = (256, 256)


@dataclass
class _Work:
    """What one request needs, headers of its answer, and the milliseconds of each step."""

    headers: dict[str, str] = field(default_factory=dict, kw_only=True)
    milliseconds: dict[str, float] = field(default_factory=dict, init=False)
    futures: list[Future] = field(default_factory=list, init=False)
    wanted: bool = field(default=True, init=False)

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


@dataclass
class PictureWork(_Work):
    """A picture: `finish` makes the answer of its label map `[H, W]`, or of its scores, and the picture where it needs it."""

    finish: Callable[[np.ndarray, np.ndarray | None], bytes]
    needs_picture: bool = False
    needs_scores: bool = False


@dataclass
class TensorWork(_Work):
    """A tensor: `finish` makes the answer of the graph's output `[N, ...]`, its description, and what was asked for.

    `header_length` is that of `TensorReader`.
    """

    finish: "Callable[[np.ndarray, TensorSpec, Asked], bytes]"
    header_length: int | None = None


class Pipeline:
    """One model of the service, without HTTP.

    Args:
        name: of the model.
        predictor: the model.
        classes: of the model.
        settings: limits and sizes.
        metrics: is told about runs.
        decoders: of all models of the service.
    """

    def __init__(
        self,
        name: str,
        predictor: "Predictor",
        classes: "ClassNames",
        settings: "Settings",
        metrics: "Metrics",
        decoders: "DecodePool",
    ):
        self.name, self.predictor = name, predictor
        self.classes = classes
        self._max_pixels, self._decoders = settings.max_pixels, decoders
        self._reader = PictureReader(predictor.image_format, settings.max_pixels)
        fixed = predictor.files.fixed_batch
        self.max_batch = fixed * predictor.parallel if fixed else settings.max_batch
        # Waiting for more pictures is of no use to a model that takes one at a time.
        wait = settings.batch_wait_ms / 1000 if self.max_batch > 1 else 0
        self.queue = BatchQueue(predictor.run, self.max_batch, wait, lambda *run: metrics.ran(name, *run))
        self._pool = ThreadPoolExecutor(settings.workers, thread_name_prefix="pictures")
        self._pixel_slots = asyncio.Semaphore(3 * self.max_batch)
        self._tensors: tuple[TensorSpec, TensorSpec] | None = None
        metrics.queue_length(name, lambda: len(self.queue))

    async def tensors(self) -> tuple[TensorSpec, TensorSpec]:
        """The graph's input and output. What it gives is known from a run: the output's kind, and how many classes it has.

        Raises:
            Refusal: 500; this run failed.
        """
        if self._tensors is None:
            predictor = self.predictor
            height, width = predictor.files.fixed_size or (-1, -1)
            if predictor.output_kind is None:
                size = predictor.files.fixed_size or WARM_UP
                try:
                    await self._queued([np.zeros((predictor.image_format.channels, *size), np.float32)], _Work())
                except ExportError as error:
                    raise Refusal(500, f"the model failed: {error}") from error
            dtype, classes = predictor.output_kind
            shape = (-1, height, width) if classes is None else (-1, classes, height, width)
            self._tensors = (
                TensorSpec(predictor.input_name, "float32", (-1, predictor.image_format.channels, height, width)),
                TensorSpec(predictor.output_name, dtype, shape),
            )
        return self._tensors

    async def answer(self, content: bytes, work: PictureWork | TensorWork) -> bytes:
        """What `work.finish` makes of the model's output for a picture or tensor.

        Raises:
            Refusal: content that cannot be used, or a backend that failed.
        """
        with work.step("queue"):
            await self._pixel_slots.acquire()
        steps = asyncio.ensure_future(self._steps(content, work))
        try:
            # A thread that decodes cannot be interrupted, so the steps go on and give their place back themselves.
            return await asyncio.shield(steps)
        except asyncio.CancelledError:
            steps.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody is left to hear it
            for future in work.futures:
                self.queue.withdraw(future)
            work.wanted = False
            raise
        except DataError as error:
            raise Refusal(422, str(error)) from error
        except ExportError as error:
            logger.error(f"a batch of {self.name} failed: {error}")
            raise Refusal(500, f"the model failed: {error}") from error

    async def _steps(self, content: bytes, work: PictureWork | TensorWork) -> bytes:
        """All steps of a request that holds a place; gives it back when its pixels are gone."""
        try:
            if isinstance(work, TensorWork):
                return await self._tensor_steps(content, work)
            return await self._picture_steps(content, work)
        finally:
            self._pixel_slots.release()

    async def _picture_steps(self, content: bytes, work: PictureWork) -> bytes:
        with work.step("read"):
            tensor, info, picture = await self._in_thread(self._prepare, content, work.needs_picture, work.needs_scores)
        work.require_wanted()
        with work.step("run"):
            if isinstance(tensor, Tiled):
                output = await self._in_thread(self._run_tiles, tensor, work)
            else:
                inputs = [tensor]
                del tensor
                (output,) = await self._queued(inputs, work)
        work.require_wanted()
        with work.step("write"):
            return await self._in_thread(self._finish, output, info, picture, work)

    async def _tensor_steps(self, content: bytes, work: TensorWork) -> bytes:
        with work.step("read"):
            graph_input, graph_output = await self.tensors()
            reader = TensorReader(graph_input, graph_output, self._max_pixels, work.header_length)
            batch, asked = await self._in_thread(self._decoders.decode, reader, content)
            _, classes = self.predictor.output_kind
            count = batch.shape[0] * batch.shape[2] * batch.shape[3] * (classes or 1)
            limit = MAX_PROBABILITIES if asked.binary else MAX_JSON_NUMBERS
            if count > limit:
                hint = "send a smaller input" if asked.binary else "send a smaller input, or ask for a binary output"
                raise Refusal(413, f"{count} numbers in the output; {limit} are allowed, {hint}")
            inputs = list(batch)
            del batch
        work.require_wanted()
        with work.step("run"):
            outputs = await self._queued(inputs, work)
        work.require_wanted()
        with work.step("write"):
            return await self._in_thread(lambda: work.finish(np.stack(outputs), graph_output, asked))

    async def _queued(self, inputs: list[np.ndarray], work: _Work) -> list[np.ndarray]:
        """The graph's output for each input `[C, H, W]`; ends when the queue holds none of them. Empties `inputs`."""
        loop, gone, held = asyncio.get_running_loop(), asyncio.Event(), len(inputs)

        def released() -> None:
            nonlocal held
            held -= 1
            if held == 0:
                gone.set()

        while inputs:
            work.futures.append(self.queue.submit(inputs.pop(0), lambda: loop.call_soon_threadsafe(released)))
        try:
            return [await asyncio.wrap_future(future) for future in work.futures]
        finally:
            await gone.wait()

    async def _in_thread(self, function, *args):
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *args)

    def _prepare(self, content: bytes, needs_picture: bool, needs_scores: bool):
        picture, _ = self._decoders.decode(self._reader, content)
        values = picture.shape[0] * picture.shape[1] * len(self.classes.names)
        if needs_scores and values > MAX_PROBABILITIES:
            raise Refusal(
                413, f"{values} probabilities for this picture; {MAX_PROBABILITIES} are allowed, send a smaller one"
            )
        tensor, info = self.predictor.prepare(picture, "picture")
        return tensor, info, picture if needs_picture else None

    def _run_tiles(self, picture: Tiled, work: PictureWork) -> np.ndarray:
        """Tiles queue one after another, so that other pictures get their turn between them."""

        def run(batch: np.ndarray) -> list[np.ndarray]:
            work.require_wanted()
            return [future.result() for future in [self.queue.submit(tensor) for tensor in batch]]

        return self.predictor.run_tiled(picture, run, with_scores=work.needs_scores)

    def _finish(self, output: np.ndarray, info: list, picture: np.ndarray | None, work: PictureWork) -> bytes:
        if work.needs_scores:
            return work.finish(self.predictor.probabilities(output, info), picture)
        return work.finish(self.predictor.postprocess(output, info), picture)

    def stop(self) -> None:
        """Finishes the admitted requests."""
        self.queue.stop()
        self._pool.shutdown()
