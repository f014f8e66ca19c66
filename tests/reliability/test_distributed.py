# SPDX-License-Identifier: Apache-2.0
"""Two ranks, and one of them fails: all end soon, one line names the rank, nothing lives on, and a rerun goes on."""

import re
import signal
import time

from paddle_dnl.training.checkpoints import checkpoint

import numpy as np
import pytest
import tiny_training
from launching import Started, training_words
from recording import make_config

LIMIT = 60  # seconds from the fault to the end of the last process


def _fail(tmp_path, fault, traceback_of=None, **flags):
    """Trains on two ranks with a fault at step 7; returns what was written.

    A rank in which the program itself is wrong shows a traceback instead of a line.
    """
    make_config(tmp_path)
    words = training_words(tmp_path, [fault], **{"iters": 12, "save_interval": 5, **flags})
    started = Started("faulty_training.py", words, tmp_path, ranks=2)
    started.wait_for("iter: 6/")
    began = time.monotonic()
    status = started.wait(LIMIT)
    started.require_nothing_left(LIMIT - (time.monotonic() - began))
    assert status != 0
    _require_one_message_each(started.logs, traceback_of)
    return started.text()


def _require_one_message_each(logs, traceback_of):
    """One line of error in each rank's own log; the launcher's output repeats the logs."""
    found = {path.name: _errors(path.read_text(errors="replace")) for path in sorted(logs.glob("workerlog.*"))}
    assert sorted(found) == ["workerlog.0", "workerlog.1"]
    for number, (name, lines) in enumerate(found.items()):
        assert len(lines) == (number != traceback_of), (name, lines)
        assert all(line.startswith(f"Error (rank {number}): ") for line in lines), (name, lines)


def _errors(text):
    return [line for line in text.splitlines() if line.startswith("Error (rank")]


def _rerun(tmp_path, iters=12, at=(5,), **flags):
    """The same command with --resume_model auto, without the fault, ends as an unbroken run does.

    It goes on at one of the iterations `at`.
    """
    flags |= {"iters": iters, "save_interval": 5}
    resumed = Started(
        "faulty_training.py",
        training_words(tmp_path, resume_model="auto", **flags),
        tmp_path,
        2,
    )
    assert resumed.wait() == 0, resumed.text()[-3000:]
    found = re.search(r"resumed from .* at iter (\d+)", resumed.text())
    assert found and int(found.group(1)) in at, resumed.text()[-3000:]
    resumed.require_nothing_left()
    flags |= {"save_dir": tmp_path / "unbroken"}
    unbroken = Started("faulty_training.py", training_words(tmp_path, **flags), tmp_path, 2)
    assert unbroken.wait() == 0, unbroken.text()[-3000:]
    left, right = (tiny_training.weights(tmp_path / name / f"iter_{iters}") for name in ("output", "unbroken"))
    for key, value in left.items():
        np.testing.assert_array_equal(value, right[key], err_msg=key)


def test_a_killed_rank_is_named(tmp_path):
    text = _fail(tmp_path, {"kind": "kill", "rank": 1, "at": 7})
    found = _errors(text)
    assert re.search(r"Error \(rank 0\): rank 1 on \S+ \(process \d+\) ended without a message", "\n".join(found)), (
        text[-3000:]
    )
    assert checkpoint.find_resume("auto", tmp_path / "output").name == "iter_5"


@pytest.mark.slow
def test_a_killed_rank_of_a_second_training_in_the_same_processes(tmp_path):
    """Its watchdogs meet each other, not those of the first training, which have ended."""
    text = _fail(tmp_path, {"kind": "kill", "rank": 1, "at": 7}, before=tmp_path / "first")
    assert re.search(r"Error \(rank 0\): rank 1 on \S+ \(process \d+\) ended without a message", text), text[-3000:]
    assert checkpoint.find_resume("auto", tmp_path / "first").name == "iter_12"
    assert checkpoint.find_resume("auto", tmp_path / "output").name == "iter_5"


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank_and_a_rerun(tmp_path, rank, workers):
    text = _fail(tmp_path, {"kind": "kill", "rank": rank, "at": 7}, num_workers=workers)
    assert re.search(rf"Error \(rank {1 - rank}\): rank {rank} on \S+ \(process \d+\) ended without", text), text[
        -3000:
    ]
    _rerun(tmp_path, num_workers=workers)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_raises(tmp_path, rank):
    text = _fail(tmp_path, {"kind": "raise", "rank": rank, "at": 7}, traceback_of=rank)
    named = (
        rf"Error \(rank {1 - rank}\): rank {rank} on \S+ \(process \d+\) failed: RuntimeError: a defect of the program"
    )
    assert re.search(named, text), text[-3000:]
    _rerun(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_file(tmp_path, workers):
    """The rank that reads it names it, and the other one repeats that."""
    picture = tmp_path / "data" / "image_3.png"
    make_config(tmp_path)
    whole = picture.read_bytes()
    text = _fail(tmp_path, {"kind": "damage", "path": str(picture), "rank": 0, "at": 7}, num_workers=workers, iters=30)
    at_fault = re.search(rf"Error \(rank (\d)\): .*{re.escape(str(picture))}", text)
    assert at_fault, text[-3000:]
    other = 1 - int(at_fault.group(1))
    assert re.search(rf"Error \(rank {other}\): rank {1 - other} .* failed: .*image_3\.png", text), text[-3000:]
    picture.write_bytes(whole)
    # Workers had read some batches ahead, before the damage.
    _rerun(tmp_path, iters=30, at=(5, 10), num_workers=workers)


@pytest.mark.slow
def test_a_checkpoint_that_cannot_be_written(tmp_path):
    """Only rank 0 writes; rank 1, which waits for it, says what happened to it."""
    make_config(tmp_path)
    text = _fail(tmp_path, {"kind": "inf_slot", "rank": 0, "at": 7})
    assert re.search(r"Error \(rank 0\): iter 10: optimizer slot .* holds NaN", text), text[-3000:]
    assert re.search(r"Error \(rank 1\): rank 0 .* failed: iter 10: optimizer slot", text), text[-3000:]


@pytest.mark.slow
def test_a_rank_that_fails_before_training(tmp_path):
    """The folder is taken by another run, of which only rank 0 knows."""
    from paddle_dnl.training.checkpoints.run_folder import RunFolder

    make_config(tmp_path)
    held = RunFolder(tmp_path / "output")
    started = Started("faulty_training.py", training_words(tmp_path, iters=12), tmp_path, ranks=2)
    assert started.wait(LIMIT + 30) != 0
    started.require_nothing_left()
    assert "is training in this folder" in started.text()
    assert re.search(r"Error \(rank 1\): rank 0 .* failed: --save_dir", started.text()), started.text()[-3000:]
    held.close()


@pytest.mark.slow
def test_a_slow_rank_is_waited_for(tmp_path):
    """An evaluation that takes longer on rank 0 than gloo waits for anybody (30 s) is no fault."""
    make_config(tmp_path)
    fault = {"kind": "slow_eval", "rank": 0, "seconds": 45}
    words = training_words(tmp_path, [fault], iters=6, save_interval=6, do_eval=True)
    started = Started("faulty_training.py", words, tmp_path, ranks=2)
    assert started.wait(180) == 0, started.text()[-3000:]
    assert not _errors(started.text()) and "[EVAL] #Images: 3" in started.text()
    started.require_nothing_left()


def test_a_signal_while_a_rank_waits(tmp_path):
    """Rank 0 asks the store again and again whether rank 1 has evaluated; the launcher's three signals must not break that."""
    make_config(tmp_path)
    fault = {"kind": "slow_eval", "rank": 1, "seconds": 4}
    words = training_words(tmp_path, [fault], iters=9, save_interval=3, do_eval=True)
    started = Started("faulty_training.py", words, tmp_path, ranks=2)
    started.wait_for("Start evaluating")
    time.sleep(1)
    started.process.terminate()
    started.wait(LIMIT)
    started.require_nothing_left()
    assert "stopped by signal at iter 3" in started.text() and not _errors(started.text()), started.text()[-3000:]
    assert checkpoint.find_resume("auto", tmp_path / "output").name == "iter_3"


@pytest.mark.slow
@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_launcher_saves(tmp_path, number, legacy):
    """It passes the signal on, three times within a second; that is one wish to stop."""
    make_config(tmp_path)
    words = training_words(tmp_path, [{"kind": "slow", "seconds": 1}], iters=1000, save_interval=1000, num_workers=2)
    started = Started("faulty_training.py", words, tmp_path, ranks=2, legacy=legacy)
    started.wait_for("iter: 3/1000")
    started.process.send_signal(number)
    started.wait(LIMIT)
    started.require_nothing_left()
    at = re.search(r"stopped by signal at iter (\d+)", started.text())
    assert at, started.text()[-3000:]
    assert checkpoint.find_resume("auto", tmp_path / "output").name == f"iter_{at.group(1)}"
