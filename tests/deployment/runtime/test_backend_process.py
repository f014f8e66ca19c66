# SPDX-License-Identifier: Apache-2.0
"""EngineProcess: the same numbers as the engine here, other threads that move, and ends of the process that are survived."""

import os
import signal
import subprocess
import sys
import threading
import time

from paddle_dnl.deployment.runtime.backend_process import EngineProcess
from paddle_dnl.deployment.runtime.predictor import Predictor
from paddle_dnl.errors import ConfigError, ExportError, UsageError

import numpy as np
import pytest
from tiny_export import blocks


@pytest.fixture(scope="module")
def engine(exported):
    engine = EngineProcess(exported, cpu_threads=1)
    yield engine
    engine.close()
    assert not engine.alive


def test_same_classes_and_errors_as_an_engine_here(exported, engine):
    predictor = Predictor(exported, engine=engine)
    assert predictor.engine == "paddle"
    pictures = [blocks(4, 8, size, size) for size in (8, 12, 16)]
    for found, (_, label) in zip(predictor.predict([image for image, _ in pictures]), pictures, strict=True):
        np.testing.assert_array_equal(found, label)
    with pytest.raises(ExportError, match="Paddle Inference failed"):
        predictor.run(np.zeros((1, 5, 32, 64), np.float32))
    np.testing.assert_array_equal(predictor.predict([pictures[0][0]])[0], pictures[0][1])
    assert engine.starts == 1


def _stopped(engine):
    """Lets the process stand still; the batch given to it meanwhile gets no answer."""
    os.kill(engine._process.pid, signal.SIGSTOP)
    return engine._process.pid


def test_a_dead_process_costs_one_batch(exported, engine):
    predictor = Predictor(exported, engine=engine)
    image, label = blocks(4, 8, 8)
    before, pid = engine.starts, _stopped(engine)
    threading.Timer(0.3, os.kill, (pid, signal.SIGKILL)).start()
    with pytest.raises(ExportError, match="the engine's process ended by signal 9"):
        predictor.predict([image])
    assert not engine.alive
    np.testing.assert_array_equal(predictor.predict([image])[0], label)
    assert engine.starts == before + 1 and engine.alive


def test_a_batch_that_does_not_end_is_given_up(exported, engine, monkeypatch):
    predictor = Predictor(exported, engine=engine)
    image, label = blocks(4, 8, 8)
    monkeypatch.setattr(engine, "_time_limit", 0.2)
    _stopped(engine)
    began = time.perf_counter()
    with pytest.raises(ExportError, match=r"did not finish within 0\.2 s"):
        predictor.predict([image])
    assert time.perf_counter() - began < 3
    monkeypatch.setattr(engine, "_time_limit", 30)
    np.testing.assert_array_equal(predictor.predict([image])[0], label)


def test_other_threads_run_beside_it(exported, engine):
    """A stopped process is an engine that takes for ever: this one must go on meanwhile."""
    ticks, found = [], []
    image, label = blocks(4, 8, 8)
    predictor = Predictor(exported, engine=engine)
    predictor.predict([image])
    pid = _stopped(engine)
    worker = threading.Thread(target=lambda: found.extend(predictor.predict([image])))
    worker.start()
    for _ in range(20):
        time.sleep(0.01)
        ticks.append(time.perf_counter())
    assert worker.is_alive() and max(np.diff(ticks)) < 1
    os.kill(pid, signal.SIGCONT)
    worker.join(30)
    np.testing.assert_array_equal(found[0], label)


def test_signals_to_the_group_do_not_end_it(exported, engine):
    engine.run(np.zeros((1, 3, 32, 64), np.float32))
    pid = engine._process.pid
    for sign in (signal.SIGINT, signal.SIGTERM):
        os.kill(pid, sign)
    assert engine.run(np.zeros((1, 3, 32, 64), np.float32)).shape == (1, 32, 64)
    assert engine._process.pid == pid


def test_what_cannot_be_loaded_is_said_here(exported, tmp_path):
    with pytest.raises(ConfigError, match=r"deploy\.yaml"):
        EngineProcess(tmp_path)
    with pytest.raises(UsageError, match="'tensorrt' is not one of"):
        EngineProcess(exported, "tensorrt")


def test_a_program_that_forgets_to_close_it_ends(exported, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import sys\nfrom paddle_dnl.deployment.runtime.backend_process import EngineProcess\n"
        "if __name__ == '__main__':\n    engine = EngineProcess(sys.argv[1])\n"
    )
    assert subprocess.run([sys.executable, str(program), str(exported)], timeout=120).returncode == 0
