# SPDX-License-Identifier: Apache-2.0
"""`BackendProcess`: a backend in a child process, so that the caller can work while it runs."""

import multiprocessing
import os
import threading
import warnings
from pathlib import Path

from paddle_dnl.deployment.runtime.deploy_yaml import read_deploy_config
from paddle_dnl.deployment.runtime.options import BackendOptions
from paddle_dnl.deployment.runtime.selection import make_backend
from paddle_dnl.errors import ExportError, PaddleDnlError, revived, sendable
from paddle_dnl.startup import child_processes, configure_process

import numpy as np

_GOODBYE_SECONDS = 10
# Loading a model, which includes compiling it in some backends, may take longer than any batch.
LOAD_SECONDS = 600


class BackendProcess:
    """Runs an exported graph in another process; `Predictor(folder, backend=BackendProcess(folder))` uses it.

    Paddle Inference keeps Python's interpreter lock while it runs (seen with 3.3.1: no other thread moves). So threads
    that read and write pictures, or answer requests, can only work beside a backend that is elsewhere. A crash in native
    code then ends that process and not the caller: the batch fails, and the next one starts a new process.

    Args:
        folder: an exported folder or its deploy.yaml.
        backend: `paddle`, `onnxruntime`, `openvino` or `auto`.
        time_limit: seconds after which a batch is given up and the process is ended, also while it has not yet read the
            batch; None waits for ever. Loading the model is given up after `LOAD_SECONDS`.
        options: fields of `BackendOptions`.

    Raises:
        ConfigError, ExportError, UsageError: as `make_backend` raises them.
    """

    def __init__(self, folder: str | Path, backend: str = "paddle", *, time_limit: float | None = None, **options):
        # Errors of the folder are raised here, before the process is started.
        read_deploy_config(folder)
        self._what = (str(folder), backend, BackendOptions(**options))
        self._time_limit = time_limit
        # One batch at a time, because answers carry no number.
        self._lock = threading.Lock()
        self.starts = 0
        self._start()

    def _start(self) -> None:
        # A forked copy of a process with threads or a loaded Paddle can hang.
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        what = (other, os.getpid(), *self._what)
        self._process = context.Process(target=_work, args=what, daemon=True, name="backend")
        child_processes.start(self._process)
        child_processes.at_end_of(self, self._process.kill)  # for callers that never close it
        # Without this the end of the process would not be seen as an end of file.
        other.close()
        self.starts += 1
        with child_processes.killed_after(self._process, LOAD_SECONDS) as late:
            try:
                kind, value = self._connection.recv()
            except (EOFError, OSError) as error:
                how = f"it took more than {LOAD_SECONDS} s" if late.is_set() else self._obituary()
                self._end()
                raise ExportError(f"{self._what[0]}: the model could not be loaded: {how}") from error
        if kind != "ready":
            self._end()
            raise revived(kind, value)
        self.name, self.parallel, self.input_name, self.output_name = value

    @property
    def alive(self) -> bool:
        """Whether the process is alive."""
        return self._process.is_alive()

    def run(self, batch: np.ndarray) -> np.ndarray:
        """`[N, C, H, W]` float32 to the graph's output. May be called from any thread.

        Raises:
            ExportError: the graph failed, ran over the time limit, or ended its process.
        """
        with self._lock:
            if not self.alive:
                self._start()
            with child_processes.killed_after(self._process, self._time_limit) as late:
                try:
                    self._connection.send(np.ascontiguousarray(batch, np.float32))
                    kind, value = self._connection.recv()
                except (EOFError, OSError) as error:
                    if late.is_set():
                        self._end()
                        text = f"the backend did not finish within {self._time_limit:g} s and was stopped"
                        raise ExportError(text) from error
                    raise ExportError(self._obituary()) from error
        if kind != "done":
            raise revived(kind, value)
        return value

    def _obituary(self) -> str:
        how = child_processes.how_it_ended(self._process)
        self._end()
        return f"the backend's process ended {how}"

    def _end(self) -> None:
        self._connection.close()
        if self._process.is_alive():
            self._process.kill()
        self._process.join()

    def close(self) -> None:
        """Ends the process after the current batch."""
        with self._lock:
            # The process ends by itself when the connection is closed.
            self._connection.close()
            self._process.join(_GOODBYE_SECONDS)
            self._end()


def _work(connection, parent: int, folder: str, name: str, options: BackendOptions) -> None:
    """Main function of the child process: answers batches until the connection closes."""
    child_processes.die_with(parent)
    child_processes.leave_signals_to_parent()
    configure_process()
    warnings.filterwarnings("ignore", message="No ccache found")  # Paddle's, only for developers of operators
    try:
        backend = make_backend(name, read_deploy_config(folder), options)
    except PaddleDnlError as error:
        connection.send(sendable(error))
        return
    child_processes.leave_signals_to_parent()  # again: importing Paddle sets handlers of its own
    description = (backend.name, getattr(backend, "parallel", 1), backend.input_name, backend.output_name)
    connection.send(("ready", description))
    while True:
        try:
            batch = connection.recv()
        except (EOFError, OSError):
            return
        try:
            answer = ("done", backend.run(batch))
        except PaddleDnlError as error:
            answer = sendable(error)
        try:
            connection.send(answer)
        except OSError:
            return
