# SPDX-License-Identifier: Apache-2.0
"""Pipeline that reads, predicts and writes pictures or video frames concurrently.

    read + preprocess (threads)  ->  backend (caller's thread)  ->  postprocess + write (threads)

Both queues are bounded, so that memory does not grow with the number of pictures. The order of pictures is kept.
"""

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paddle_dnl.data.images.picture_rows import Tiled
from paddle_dnl.data.images.raster_files import Place
from paddle_dnl.data.overlay import as_label
from paddle_dnl.errors import DataError, PaddleDnlError

import numpy as np

# Number of reader threads.
_READERS = 2


@dataclass
class Picture:
    """One picture in the pipeline.

    Attributes:
        title: name of the picture in messages.
        source: file, encoded content, or BGR pixels `[H, W, 3]`.
        name: relative path of the output files.
        wants_place: whether to read the georeference of a GeoTIFF.
        place: the georeference; set when the file is read.
    """

    title: str
    source: Path | bytes | np.ndarray
    name: Path
    wants_place: bool = False
    place: Place | None = None


@dataclass
class Timing:
    """Time of a run.

    Attributes:
        pictures: number of predicted pictures.
        seconds: from the first read to the last write.
        backend_seconds: time in the backend.
    """

    pictures: int
    seconds: float
    backend_seconds: float

    @property
    def rate(self) -> float:
        """Pictures per second."""
        return self.pictures / self.seconds if self.seconds > 0 else 0.0


def read_ahead(items: Iterable, depth: int) -> Iterator:
    """Yields the items; a thread reads up to `depth` of them ahead, for slow sources such as a video decoder."""
    iterator = iter(items)
    end = object()
    with ThreadPoolExecutor(1, "reader") as pool:
        window = deque(pool.submit(next, iterator, end) for _ in range(depth))
        while (item := window.popleft().result()) is not end:
            window.append(pool.submit(next, iterator, end))
            yield item


def _prepare(predictor, picture: Picture) -> tuple:
    if isinstance(picture.source, np.ndarray):
        pixels = predictor.image_format.of_array(picture.source, picture.title)
    elif isinstance(picture.source, bytes):
        if not picture.source:
            raise DataError(f"{picture.title}: is empty (0 bytes)")
        pixels = predictor.decode(picture.source, picture.title)
    else:
        if picture.wants_place:
            picture.place = Place.of(picture.source)
        pixels = predictor.open(picture.source)
        if isinstance(pixels, Tiled):
            return picture, pixels, pixels, []
    tensor, info = predictor.prepare(pixels, picture.title)
    return picture, pixels, tensor, info


def _finish(predictor, write: Callable, picture: Picture, pixels, output, info, with_scores: bool) -> None:
    if isinstance(pixels, Tiled):
        pixels = pixels.rows.read(0, pixels.rows.size[0])
    if not with_scores:
        write(picture, pixels, predictor.postprocess(output, info), None)
        return
    probabilities = predictor.probabilities(output, info)
    write(picture, pixels, as_label(probabilities.argmax(0)), probabilities)


def run_pipeline(
    predictor,
    pictures: Iterable[Picture],
    write: Callable[[Picture, np.ndarray, np.ndarray, np.ndarray | None], None],
    *,
    batch_size: int = 1,
    writers: int = 2,
    with_scores: bool = False,
    unreadable: Callable[[DataError], None] | None = None,
    write_strips: Callable[[Picture, Any, Iterator[np.ndarray]], None] | None = None,
) -> Timing:
    """Predicts all pictures.

    Args:
        predictor: a `Predictor`. Paddle Inference holds Python's global interpreter lock while it runs, so reading and
            writing overlap only with ONNX Runtime or a `BackendProcess`.
        pictures: pictures in order.
        write: called in a writer thread with the picture, its pixels, its classes `[H, W]`, and its probabilities
            `[K, H, W]` or None.
        batch_size: pictures per run.
        writers: number of writer threads; 1 calls `write` in order.
        with_scores: pass probabilities to `write`.
        unreadable: called instead of raising an error when a picture cannot be read or preprocessed; it is then
            skipped.
        write_strips: called in the caller's thread instead of `write` for a picture that does not fit into memory, with
            the picture, its rows, and its classes in strips `[rows, W]`. Not used with `with_scores`.

    Raises:
        PaddleDnlError: a picture cannot be read, run or written; pending work is canceled. If the iterator `pictures`
            fails, for example at a damaged video frame, the pictures before it are completed first.
    """
    began, in_backend, count = time.perf_counter(), 0.0, 0
    waiting = iter(pictures)
    ahead: deque = deque()
    behind: deque = deque()
    limit = 2 * batch_size + _READERS
    torn: PaddleDnlError | None = None
    reading, writing = ThreadPoolExecutor(_READERS, "reader"), ThreadPoolExecutor(writers, "writer")
    try:
        while True:
            while torn is None and len(ahead) < batch_size + limit:
                try:
                    ahead.append(reading.submit(_prepare, predictor, next(waiting)))
                except StopIteration:
                    break
                except PaddleDnlError as error:
                    torn = error
            if not ahead:
                break
            batch = []
            while ahead and len(batch) < batch_size:
                try:
                    one = ahead.popleft().result()
                    if write_strips and not with_scores and isinstance(one[2], Tiled) and one[2].is_stream:
                        start = time.perf_counter()
                        with contextlib.closing(one[2].rows):
                            write_strips(one[0], one[2].rows, predictor.tiled_strips(one[2]))
                        in_backend += time.perf_counter() - start
                        count += 1
                    else:
                        batch.append(one)
                except DataError as error:
                    if unreadable is None:
                        raise
                    unreadable(error)
            if not batch:
                continue
            start = time.perf_counter()
            outputs = predictor.run_each([tensor for _, _, tensor, _ in batch], with_scores=with_scores)
            in_backend += time.perf_counter() - start
            count += len(batch)
            for (picture, pixels, _, info), output in zip(batch, outputs, strict=True):
                behind.append(writing.submit(_finish, predictor, write, picture, pixels, output, info, with_scores))
            while len(behind) > limit:
                behind.popleft().result()
        for future in behind:
            future.result()
        if torn is not None:
            raise torn
    finally:
        # Waits for running tasks and cancels pending ones; after success there are none.
        reading.shutdown(cancel_futures=True)
        writing.shutdown(cancel_futures=True)
    return Timing(count, time.perf_counter() - began, in_backend)
