# SPDX-License-Identifier: Apache-2.0
"""Decoding in worker processes with limits of time and memory; a process can be killed, a thread cannot."""

import multiprocessing
import os
import queue
import signal
import sys
import threading

from paddle_dnl.data.images.image_format import ImageFormat
from paddle_dnl.data.images.untrusted import TooLarge, UnknownFormat
from paddle_dnl.errors import PaddleDnlError
from paddle_dnl.log import logger
from paddle_dnl.startup import child_processes

import cv2
import numpy as np

from .refusal import Refusal

# Address space of a worker beyond what it takes when it starts: the decoder's own, and per pixel three channels of 16 bits, twice
# (a turned copy), with room to spare.
_MEMORY, _MEMORY_PER_PIXEL = 512 << 20, 24
# Of a picture with many bands: the file, its numbers of up to 8 bytes, and float32 twice.
_MEMORY_PER_VALUE = 24
# A new worker imports NumPy and OpenCV before it answers.
_START_SECONDS = 60
_STATUS = {UnknownFormat: 415, TooLarge: 413}


class DecodePool:
    """Decodes untrusted pictures in `workers` processes; a process that takes too long or dies is replaced.

    Args:
        workers: processes; `decode` blocks while all are busy.
        seconds: time limit of one picture.
        image_format: number of bands and scale.
        max_pixels: see `paddle_dnl.data.images.untrusted.require_bounded`.
    """

    def __init__(self, workers: int, seconds: float, image_format: ImageFormat, max_pixels: int):
        self._settings = (seconds, image_format, max_pixels)
        self._seconds = seconds
        self._idle: queue.Queue[_Worker] = queue.Queue()
        self._all = [_Worker(self._settings) for _ in range(workers)]
        self._closed = threading.Event()
        for worker in self._all:
            self._idle.put(worker)
        child_processes.at_end_of(self, _kill_all, self._all)

    def start(self) -> None:
        """Starts all processes without waiting for them; else each is started by its first picture."""
        for worker in self._all:
            worker.start()

    def decode(self, content: bytes) -> np.ndarray:
        """A picture as uint8 BGR `[H, W, 3]` or grey `[H, W]`; may be called from any thread.

        Raises:
            Refusal: 413, 415 or 422, as the content deserves; 503 while the pool is being closed.
        """
        worker = self._idle.get()
        try:
            if self._closed.is_set():
                raise Refusal(503, "the service is being stopped", retry_after=10)
            return worker.decode(content)
        finally:
            self._idle.put(worker)

    def close(self) -> None:
        """Ends all workers at once; a picture that is being decoded is given up."""
        self._closed.set()
        _kill_all(self._all)


def _kill_all(workers: list["_Worker"]) -> None:
    for worker in workers:
        worker.kill()


class _Worker:
    """One process and the connection to it; started when it is first needed."""

    def __init__(self, settings: tuple[float, int, int]):
        self._settings, self._process, self._connection, self._ready = settings, None, None, False

    def decode(self, content: bytes) -> np.ndarray:
        seconds = self._settings[0]
        try:
            if self._process is None or not self._process.is_alive():
                self._end()
                self.start()
            if not self._ready:
                if not self._connection.poll(_START_SECONDS):
                    self._process.kill()
                self._connection.recv_bytes()
                self._ready = True
            # The process reads its input before it decodes; if it hangs instead, it is killed, which ends the sending.
            with child_processes.killed_after(self._process, seconds):
                self._connection.send_bytes(content)
                status, value = self._connection.recv()
                picture = None
                if status == 200:
                    picture = np.frombuffer(self._connection.recv_bytes(), value[1]).reshape(value[0])
        except (EOFError, OSError) as error:
            code = self._end()
            if code == -signal.SIGKILL:
                text = f"the picture could not be decoded within {seconds:g} s (decode_seconds) and the memory allowed"
                raise Refusal(422, text) from error
            logger.warning(f"a decoding process ended with status {code}; the next picture starts another")
            raise Refusal(422, "the picture ended the process that decoded it") from error
        if status != 200:
            raise Refusal(status, value)
        return picture

    def start(self) -> None:
        """Starts the process; call it once before `decode`, or not at all."""
        # A forked copy of a process with threads can hang.
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        self._process = context.Process(
            target=_work, args=(other, os.getpid(), *self._settings[1:]), daemon=True, name="decoder"
        )
        child_processes.start(self._process)
        other.close()
        self._ready = False

    def kill(self) -> None:
        """Kills the process, which ends all waits for it. May be called from any thread."""
        process = self._process
        if process is not None:
            process.kill()

    def _end(self) -> int | None:
        """Kills the process and forgets it; returns its exit status."""
        if self._process is None:
            return None
        self._process.kill()
        self._process.join()
        self._connection.close()
        code, self._process = self._process.exitcode, None
        return code


def _limit_memory(extra: int) -> None:
    """Bounds the address space, where the system can."""
    if sys.platform != "linux":
        return
    import resource

    with open("/proc/self/statm") as file:
        taken = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + extra, taken + extra))


def _work(connection, parent: int, image_format: ImageFormat, max_pixels: int) -> None:
    """The worker process: decodes until the connection closes."""
    child_processes.die_with(parent)
    child_processes.leave_signals_to_parent()
    cv2.setNumThreads(1)
    per_pixel = _MEMORY_PER_PIXEL
    if image_format != ImageFormat(image_format.channels) or image_format.channels not in (1, 3):
        per_pixel = _MEMORY_PER_VALUE * image_format.channels
    _limit_memory(_MEMORY + per_pixel * max_pixels)
    # OpenCV writes a line there for every picture that it cannot read; the answer says so.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    connection.send_bytes(b"ready")
    while True:
        try:
            content = connection.recv_bytes()
        except (EOFError, OSError):
            return
        picture, answer = None, None
        try:
            data = np.frombuffer(content, np.uint8)
            picture = np.ascontiguousarray(image_format.decode(data, "picture", max_pixels=max_pixels, whole=True))
            answer = (200, (picture.shape, picture.dtype.str))
        except PaddleDnlError as error:  # or a library that is not installed
            answer = (_STATUS.get(type(error), 422), str(error))
        except (MemoryError, cv2.error):
            answer = (422, "picture: needs more memory to decode than is allowed")
        try:
            connection.send(answer)
            if picture is not None:
                connection.send_bytes(picture.data.cast("B") if picture.size else b"")
        except OSError:
            return
