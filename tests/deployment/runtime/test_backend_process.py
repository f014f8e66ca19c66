# SPDX-License-Identifier: Apache-2.0
"""BackendProcess: the same numbers as the backend here, other threads that move, and ends of the process that are survived."""

import os
import signal
import subprocess
import sys
import threading
import time

from paddle_dnl.data.images.untrusted import TooLarge
from paddle_dnl.deployment.runtime import backend_process
from paddle_dnl.deployment.runtime.backend_process import BackendProcess
from paddle_dnl.deployment.runtime.options import BackendOptions
from paddle_dnl.deployment.runtime.predictor import Predictor
from paddle_dnl.errors import ConfigError, DataError, ExportError, UsageError, revived, sendable
from paddle_dnl.startup import child_processes

import numpy as np
import pytest
from tiny_export import blocks


@pytest.fixture(scope="module")
def backend(exported):
    backend = BackendProcess(exported, cpu_threads=1)
    yield backend
    backend.close()
    assert not backend.alive


def test_same_classes_and_errors_as_a_backend_here(exported, backend):
    predictor = Predictor(exported, backend=backend)
    assert predictor.backend == "paddle"
    pictures = [blocks(4, 8, size, size) for size in (8, 12, 16)]
    for found, (_, label) in zip(predictor.predict([image for image, _ in pictures]), pictures, strict=True):
        np.testing.assert_array_equal(found, label)
    with pytest.raises(ExportError, match="Paddle Inference failed"):
        predictor.run(np.zeros((1, 5, 32, 64), np.float32))
    np.testing.assert_array_equal(predictor.predict([pictures[0][0]])[0], pictures[0][1])
    assert backend.starts == 1


def _stopped(backend):
    """Lets the process stand still; the batch given to it meanwhile gets no answer."""
    os.kill(backend._process.pid, signal.SIGSTOP)
    return backend._process.pid


def test_a_dead_process_costs_one_batch(exported, backend):
    predictor = Predictor(exported, backend=backend)
    image, label = blocks(4, 8, 8)
    before, pid = backend.starts, _stopped(backend)
    threading.Timer(0.3, os.kill, (pid, signal.SIGKILL)).start()
    with pytest.raises(ExportError, match="the backend's process ended by signal 9"):
        predictor.predict([image])
    assert not backend.alive
    np.testing.assert_array_equal(predictor.predict([image])[0], label)
    assert backend.starts == before + 1 and backend.alive


def test_a_batch_that_does_not_end_is_given_up(exported, backend, monkeypatch):
    predictor = Predictor(exported, backend=backend)
    image, label = blocks(4, 8, 8)
    monkeypatch.setattr(backend, "_time_limit", 0.2)
    _stopped(backend)
    began = time.perf_counter()
    with pytest.raises(ExportError, match=r"did not finish within 0\.2 s"):
        predictor.predict([image])
    assert time.perf_counter() - began < 3
    monkeypatch.setattr(backend, "_time_limit", 30)
    np.testing.assert_array_equal(predictor.predict([image])[0], label)


def test_other_threads_run_beside_it(exported, backend):
    """A stopped process is a backend that takes for ever: this one must go on meanwhile."""
    ticks, found = [], []
    image, label = blocks(4, 8, 8)
    predictor = Predictor(exported, backend=backend)
    predictor.predict([image])
    pid = _stopped(backend)
    worker = threading.Thread(target=lambda: found.extend(predictor.predict([image])))
    worker.start()
    for _ in range(20):
        time.sleep(0.01)
        ticks.append(time.perf_counter())
    assert worker.is_alive() and max(np.diff(ticks)) < 1
    os.kill(pid, signal.SIGCONT)
    worker.join(30)
    np.testing.assert_array_equal(found[0], label)


def test_signals_to_the_group_do_not_end_it(exported, backend):
    backend.run(np.zeros((1, 3, 32, 64), np.float32))
    pid = backend._process.pid
    for sign in (signal.SIGINT, signal.SIGTERM):
        os.kill(pid, sign)
    assert backend.run(np.zeros((1, 3, 32, 64), np.float32)).shape == (1, 32, 64)
    assert backend._process.pid == pid


def test_what_cannot_be_loaded_is_said_here(exported, tmp_path):
    with pytest.raises(ConfigError, match=r"deploy\.yaml"):
        BackendProcess(tmp_path)
    with pytest.raises(UsageError, match="'tensorrt' is not one of"):
        BackendProcess(exported, "tensorrt")


def test_a_program_that_forgets_to_close_it_ends(exported, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import sys\nfrom paddle_dnl.deployment.runtime.backend_process import BackendProcess\n"
        "if __name__ == '__main__':\n    backend = BackendProcess(sys.argv[1])\n"
    )
    assert subprocess.run([sys.executable, str(program), str(exported)], timeout=120).returncode == 0


def test_an_error_of_a_class_elsewhere_crosses_as_its_nearest_known_one():
    error = revived(*sendable(TooLarge("a.png: too many pixels")))
    assert type(error) is DataError and str(error) == "a.png: too many pixels"


def test_an_answer_to_a_parent_that_has_closed_the_connection_is_no_traceback(tmp_path, capfd):
    """As after a signal: the parent has removed the exported folder and no longer listens."""
    what = (str(tmp_path / "removed"), "paddle", BackendOptions())
    process, connection = child_processes.start_connected(backend_process._work, *what, name="backend")
    connection.close()
    process.join(60)
    assert process.exitcode == 0 and capfd.readouterr().err == ""
