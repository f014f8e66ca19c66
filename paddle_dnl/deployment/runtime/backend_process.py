# SPDX-License-Identifier: Apache-2.0
"""`BackendProcess`: a backend in a child process, so that the caller's threads can work while it runs."""

import threading
import warnings
from pathlib import Path

from paddle_dnl.deployment.runtime.deploy_yaml import read_deploy_config
from paddle_dnl.deployment.runtime.options import BackendOptions
from paddle_dnl.deployment.runtime.selection import make_backend
from paddle_dnl.errors import ExportError, PaddleDnlError, revived, sendable
from paddle_dnl.startup import child_processes, configure_process

import numpy as np

_CLOSE_SECONDS = 10
# Time limit for loading a model. It includes compilation in some backends, so it is longer than that of a batch.
LOAD_SECONDS = 600


class BackendProcess:
    """Runs an exported graph in a child process; use it as `Predictor(folder, backend=BackendProcess(folder))`.

    Paddle Inference holds Python's global interpreter lock while it runs (observed with 3.3.1), which blocks the
    threads that read and write pictures or answer requests. A child process does not block them. A crash in native code
    ends only the child process: the batch fails, and the next batch starts a new process.

    Args:
        folder: an exported folder or its deploy.yaml.
        backend: `paddle`, `onnxruntime`, `openvino` or `auto`.
        time_limit: seconds after which a batch fails and the process is killed, including the time to send the batch;
            None: no limit. Loading the model has the limit `LOAD_SECONDS`.
        options: fields of `BackendOptions`.

    Attributes:
        starts: number of processes started so far.
        name, parallel, input_name, output_name: of the backend.

    Raises:
        ConfigError, ExportError, UsageError: as `make_backend` raises them.
    """

    def __init__(self, folder: str | Path, backend: str = "paddle", *, time_limit: float | None = None, **options):
        # Reports a bad folder before a process is started.
        read_deploy_config(folder)
        self._arguments = (str(folder), backend, BackendOptions(**options))
        self._time_limit = time_limit
        # One batch at a time, because responses do not identify their request.
        self._lock = threading.Lock()
        self.starts = 0
        self._start()

    def _start(self) -> None:
        self._process, self._connection = child_processes.start_connected(_work, *self._arguments, name="backend")
        child_processes.at_end_of(self, self._process.kill)  # for callers that never call `close`
        self.starts += 1
        with child_processes.killed_after(self._process, LOAD_SECONDS) as late:
            try:
                kind, value = self._connection.recv()
            except (EOFError, OSError) as error:
                reason = f"it took more than {LOAD_SECONDS} s" if late.is_set() else self._exit_message()
                self._end()
                raise ExportError(f"{self._arguments[0]}: the model could not be loaded: {reason}") from error
        if kind != "ready":
            self._end()
            raise revived(kind, value)
        self.name, self.parallel, self.input_name, self.output_name = value

    @property
    def alive(self) -> bool:
        """Whether the child process is running."""
        return self._process.is_alive()

    def run(self, batch: np.ndarray) -> np.ndarray:
        """Returns the graph's output for a batch `[N, C, H, W]` float32. Thread-safe.

        Raises:
            ExportError: the graph failed or exceeded the time limit, or the child process ended.
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
                    raise ExportError(self._exit_message()) from error
        if kind != "done":
            raise revived(kind, value)
        return value

    def _exit_message(self) -> str:
        how = child_processes.how_it_ended(self._process)
        self._end()
        return f"the backend's process ended {how}"

    def _end(self) -> None:
        self._connection.close()
        if self._process.is_alive():
            self._process.kill()
        self._process.join()

    def close(self) -> None:
        """Ends the child process after the current batch."""
        with self._lock:
            # The child process exits when the connection is closed.
            self._connection.close()
            self._process.join(_CLOSE_SECONDS)
            self._end()


def _work(connection, parent: int, folder: str, name: str, options: BackendOptions) -> None:
    """Main function of the child process: runs batches until the connection closes."""
    with child_processes.working_for(parent):
        configure_process()
        warnings.filterwarnings("ignore", message="No ccache found")  # Paddle's warning for those who compile operators
        try:
            backend = make_backend(name, read_deploy_config(folder), options)
        except PaddleDnlError as error:
            connection.send(sendable(error))
            return
        child_processes.leave_signals_to_parent()  # again, because importing Paddle installs its own handlers
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
            connection.send(answer)
