# SPDX-License-Identifier: Apache-2.0
"""The steps of a request to one model: decoding, preprocessing, inference in batches, encoding of the response.

Encoded pictures need little memory, decoded ones much. So up to `queue_size` requests are admitted (`admission.py`),
but a model holds at most three batches of decoded pictures: one that runs, one that waits, and one that is being
decoded or encoded. A slot is released when the decoded picture is freed, which may be after the client has
disconnected.
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
from paddle_dnl.serving.metrics import Metrics
from paddle_dnl.serving.readers import Asked, PictureReader, TensorReader, TensorSpec
from paddle_dnl.serving.refusal import Refusal

import numpy as np

if TYPE_CHECKING:
    from paddle_dnl.deployment.runtime.predictor import Predictor
    from paddle_dnl.serving.decoding import DecodePool
    from paddle_dnl.serving.results import ClassNames
    from paddle_dnl.serving.settings import Settings

# Maximum height x width x classes of a response with probabilities: 200 MB as float32.
MAX_PROBABILITIES = 50_000_000
# Maximum number of output values in a JSON response.
MAX_JSON_NUMBERS = 4_000_000
# Input size (height, width) of the first run of a model with a free input size.
WARM_UP = (256, 256)


@dataclass
class _Work:
    """State of a request: headers of the response, milliseconds of each step, and futures of the queued inputs."""

    headers: dict[str, str] = field(default_factory=dict, kw_only=True)
    milliseconds: dict[str, float] = field(default_factory=dict, init=False)
    futures: list[Future] = field(default_factory=list, init=False)
    wanted: bool = field(default=True, init=False)

    def require_wanted(self) -> None:
        """Stops the work if the client has disconnected.

        Raises:
            Refusal: 499.
        """
        if not self.wanted:
            raise Refusal(499, "the client has disconnected")

    @contextlib.contextmanager
    def step(self, name: str):
        """Measures the time of a step."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.milliseconds[name] = 1000 * (time.perf_counter() - began)


@dataclass
class PictureWork(_Work):
    """A request with a picture.

    Attributes:
        finish: makes the response from the label map `[H, W]` or the scores `[K, H, W]`, and the picture or None.
        needs_picture: whether `finish` gets the picture.
        needs_scores: whether `finish` gets scores.
    """

    finish: Callable[[np.ndarray, np.ndarray | None], bytes]
    needs_picture: bool = False
    needs_scores: bool = False


@dataclass
class TensorWork(_Work):
    """A request with a tensor.

    Attributes:
        finish: makes the response from the graph's output `[N, ...]`, its description, and the options of the request.
        header_length: see `TensorReader`.
    """

    finish: Callable[[np.ndarray, TensorSpec, Asked], bytes]
    header_length: int | None = None


class Pipeline:
    """One model of the service, independent of HTTP.

    Args:
        name: name of the model.
        predictor: the model.
        classes: its classes.
        settings: limits and sizes.
        metrics: counts the runs.
        decoders: decoding processes, shared by all models of the service.
    """

    def __init__(
        self,
        name: str,
        predictor: "Predictor",
        classes: "ClassNames",
        settings: "Settings",
        metrics: Metrics,
        decoders: "DecodePool",
    ):
        self.name, self.predictor = name, predictor
        self.classes = classes
        self._max_pixels, self._decoders = settings.max_pixels, decoders
        self._reader = PictureReader(predictor.image_format, settings.max_pixels)
        fixed = predictor.files.fixed_batch
        self.max_batch = fixed * predictor.parallel if fixed else settings.max_batch
        # With a batch size of 1 there is nothing to wait for.
        wait = settings.batch_wait_ms / 1000 if self.max_batch > 1 else 0
        self.queue = BatchQueue(predictor.run, self.max_batch, wait, lambda *run: metrics.ran(name, *run))
        self._pool = ThreadPoolExecutor(settings.workers, thread_name_prefix="pictures")
        self._pixel_slots = asyncio.Semaphore(3 * self.max_batch)
        self._tensors: tuple[TensorSpec, TensorSpec] | None = None
        metrics.queue_length(name, lambda: len(self.queue))

    async def tensors(self) -> tuple[TensorSpec, TensorSpec]:
        """Returns the graph's input and output; runs the model once if data type and classes of the output are not known yet.

        Raises:
            Refusal: 500; the run failed.
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
        """Returns the response that `work.finish` makes from the model's output for a picture or tensor.

        Raises:
            Refusal: content that cannot be used, or a backend that failed.
        """
        with work.step("queue"):
            await self._pixel_slots.acquire()
        steps = asyncio.ensure_future(self._steps(content, work))
        try:
            # A decoding thread cannot be interrupted, so the steps continue and release their slot themselves.
            return await asyncio.shield(steps)
        except asyncio.CancelledError:
            # Marks the exception as retrieved, so that asyncio does not log it.
            steps.add_done_callback(lambda done: done.cancelled() or done.exception())
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
        """Runs all steps of a request that holds a slot; releases the slot when the decoded picture is freed."""
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
                hint = "send a smaller input" if asked.binary else "send a smaller input, or request a binary output"
                raise Refusal(413, f"{count} numbers in the output exceed the limit of {limit}; {hint}")
            inputs = list(batch)
            del batch
        work.require_wanted()
        with work.step("run"):
            outputs = await self._queued(inputs, work)
        work.require_wanted()
        with work.step("write"):
            return await self._in_thread(lambda: work.finish(np.stack(outputs), graph_output, asked))

    async def _queued(self, inputs: list[np.ndarray], work: _Work) -> list[np.ndarray]:
        """Runs inputs `[C, H, W]` through the queue and returns the graph's outputs.

        Empties `inputs`, and returns when the queue holds none of them.
        """
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
                413, f"{values} probabilities exceed the limit of {MAX_PROBABILITIES}; send a smaller picture"
            )
        tensor, info = self.predictor.prepare(picture, "picture")
        return tensor, info, picture if needs_picture else None

    def _run_tiles(self, picture: Tiled, work: PictureWork) -> np.ndarray:
        """Runs a picture in tiles. Queues one batch of tiles after another, so that other pictures run in between."""

        def run(batch: np.ndarray) -> list[np.ndarray]:
            work.require_wanted()
            return [future.result() for future in [self.queue.submit(tensor) for tensor in batch]]

        return self.predictor.run_tiled(picture, run, with_scores=work.needs_scores)

    def _finish(self, output: np.ndarray, info: list, picture: np.ndarray | None, work: PictureWork) -> bytes:
        if work.needs_scores:
            return work.finish(self.predictor.probabilities(output, info), picture)
        return work.finish(self.predictor.postprocess(output, info), picture)

    def stop(self) -> None:
        """Finishes the admitted requests and ends the threads."""
        self.queue.stop()
        self._pool.shutdown()
