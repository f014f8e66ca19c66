# SPDX-License-Identifier: Apache-2.0
"""Decodes pictures in worker processes with limits of time and memory; unlike threads, processes can be killed."""

import os
import queue
import signal
import sys
import threading

from paddle_dnl.data.images.untrusted import TooLarge, UnknownFormat
from paddle_dnl.errors import PaddleDnlError
from paddle_dnl.log import logger
from paddle_dnl.serving.readers import PictureReader, TensorReader
from paddle_dnl.serving.refusal import Refusal
from paddle_dnl.startup import child_processes

import cv2
import numpy as np

# Address space in bytes for the decoding libraries, in addition to a worker's initial size and the memory of its
# readers.
_MEMORY = 512 << 20
# A new worker imports NumPy and OpenCV before it answers.
_START_SECONDS = 60
_STATUS = {UnknownFormat: 415, TooLarge: 413}


class DecodePool:
    """Decodes untrusted pictures and tensors in worker processes; replaces processes that are too slow or die.

    Args:
        workers: number of processes; `decode` blocks while all are busy.
        seconds: time limit per picture.
        memory: bytes that a process may use per picture.
    """

    def __init__(self, workers: int, seconds: float, memory: int):
        self._idle: queue.Queue[_Worker] = queue.Queue()
        self._all = [_Worker(seconds, memory) for _ in range(workers)]
        self._closed = threading.Event()
        for worker in self._all:
            self._idle.put(worker)
        child_processes.at_end_of(self, _kill_all, self._all)

    def start(self) -> None:
        """Starts all processes without waiting for them; by default a process starts with its first picture."""
        for worker in self._all:
            worker.start()

    def decode(self, reader: PictureReader | TensorReader, content: bytes) -> tuple[np.ndarray, object]:
        """Returns the result of `reader.read(content)`: an array and a second value. Thread-safe.

        Raises:
            Refusal: 400, 413, 415 or 422 for content that cannot be used; 503 while the pool is being closed.
        """
        worker = self._idle.get()
        try:
            if self._closed.is_set():
                raise Refusal(503, "the service is being stopped", retry_after=10)
            return worker.decode(reader, content)
        finally:
            self._idle.put(worker)

    def close(self) -> None:
        """Kills all workers; pictures that are being decoded are abandoned."""
        self._closed.set()
        _kill_all(self._all)


def _kill_all(workers: list["_Worker"]) -> None:
    for worker in workers:
        worker.kill()


class _Worker:
    """One process and the connection to it; started when it is first needed."""

    def __init__(self, seconds: float, memory: int):
        self._seconds, self._memory = seconds, memory
        self._process, self._connection, self._ready = None, None, False

    def decode(self, reader: PictureReader | TensorReader, content: bytes) -> tuple[np.ndarray, object]:
        seconds = self._seconds
        try:
            if self._process is None or not self._process.is_alive():
                self._end()
                self.start()
            if not self._ready:
                if not self._connection.poll(_START_SECONDS):
                    self._process.kill()
                self._connection.recv_bytes()
                self._ready = True
            # If the process hangs and does not read its input, it is killed, which ends a blocked `send`.
            with child_processes.killed_after(self._process, seconds):
                self._connection.send(reader)
                self._connection.send_bytes(content)
                status, value = self._connection.recv()
                array = None
                if status == 200:
                    array = np.frombuffer(self._connection.recv_bytes(), value[1]).reshape(value[0])
        except (EOFError, OSError) as error:
            code = self._end()
            if code == -signal.SIGKILL:
                text = f"decoding the picture exceeded {seconds:g} s (decode_seconds) or the memory limit"
                raise Refusal(422, text) from error
            logger.warning(f"a decoding process ended with status {code}; the next picture starts a new one")
            raise Refusal(422, "the decoding process crashed on this picture") from error
        if status != 200:
            raise Refusal(status, value)
        return array, value[2]

    def start(self) -> None:
        """Starts the process; optional, and at most once before `decode`."""
        self._process, self._connection = child_processes.start_connected(_work, self._memory, name="decoder")
        self._ready = False

    def kill(self) -> None:
        """Kills the process, which ends all waits for it. Thread-safe."""
        process = self._process
        if process is not None:
            process.kill()

    def _end(self) -> int | None:
        """Kills and discards the process; returns its exit status."""
        if self._process is None:
            return None
        self._process.kill()
        self._process.join()
        self._connection.close()
        code, self._process = self._process.exitcode, None
        return code


def _limit_memory(extra: int) -> None:
    """Limits the address space to its current size plus `extra` bytes; does nothing outside Linux."""
    if sys.platform != "linux":
        return
    import resource

    with open("/proc/self/statm") as file:
        taken = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + extra, taken + extra))


def _work(connection, parent: int, memory: int) -> None:
    """Main function of the worker process: decodes until the connection closes."""
    with child_processes.working_for(parent):
        cv2.setNumThreads(1)
        _limit_memory(_MEMORY + memory)
        # Discards stderr: OpenCV prints a line for every unreadable picture, which the response already reports.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        connection.send_bytes(b"ready")
        while True:
            try:
                reader = connection.recv()
                content = connection.recv_bytes()
            except (EOFError, OSError):
                return
            array, answer = None, None
            try:
                array, more = reader.read(content)
                answer = (200, (array.shape, array.dtype.str, more))
            except Refusal as refusal:
                answer = (refusal.status, refusal.text)
            except PaddleDnlError as error:  # for example DataError, or a missing library
                answer = (_STATUS.get(type(error), 422), str(error))
            except (MemoryError, cv2.error):
                array, answer = None, (422, "needs more memory to decode than is allowed")
            connection.send(answer)
            if array is not None:
                connection.send_bytes(array.data.cast("B") if array.size else b"")
