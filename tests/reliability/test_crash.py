# SPDX-License-Identifier: Apache-2.0
"""Whatever ends a training, the newest complete checkpoint loads; whatever is wrong with its folder is said in one line."""

import contextlib
import ctypes
import json
import os
import re
import resource
import shutil
import signal
import time

from paddle_dnl.errors import CheckpointError
from paddle_dnl.files.atomic import recover
from paddle_dnl.training.checkpoints import checkpoint
from paddle_dnl.training.checkpoints.run_folder import RunFolder
from paddle_dnl.weights.safe_pickle import read_pickle

import pytest
import tiny_training
from launching import Started, training_words
from recording import RecordingTrainer, make_config, record

# ------------------------------------------------------------------------------------------ kill -9


def _crash(tmp_path, *words):
    started = Started("crashing.py", [tmp_path, *words], tmp_path)
    assert started.wait(580) == 0, started.text()[-3000:]
    started.require_nothing_left()
    return json.loads(started.text().splitlines()[-1])


def test_killed_at_random_moments(tmp_path):
    assert _crash(tmp_path, "times", 4, 1)["killed"] == 4


@pytest.mark.slow
def test_killed_at_sixty_random_moments(tmp_path):
    result = _crash(tmp_path, "times", 60, 2)
    assert result["killed"] == 60, result
    # About 3 of 8 kills hit a save and leave something to tidy up; fewer than 10 of 60 is no chance but a test that misses.
    assert 60 - result["left"].get("tidy", 0) >= 10, result


@pytest.mark.slow
def test_killed_before_every_operation_on_a_file(tmp_path):
    result = _crash(tmp_path, "events", 1, 400, 1)
    assert result["all"] and result["killed"] > 40, result
    assert {"new", "old"} <= set("+".join(result["left"]).split("+")), result


# ------------------------------------------------------------------------------------------ the folder


@contextlib.contextmanager
def _largest_file(size):
    """No file of this process may grow above `size` bytes; the error is that of a quota, and a full disk's is alike."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class _FullAfterFive(RecordingTrainer):
    def save(self, scores, is_written=False):
        with _largest_file(1500) if self.state.iteration > 5 else contextlib.nullcontext():
            super().save(scores, is_written)
            self.writer.wait()


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    config = make_config(tmp_path)
    monkeypatch.setattr("recording.RecordingTrainer", _FullAfterFive)
    with pytest.raises(CheckpointError, match="iter_10: the checkpoint could not be written .*File too large"):
        record(config, tmp_path / "output")
    left = {path.name for path in (tmp_path / "output").iterdir() if path.is_dir()}
    assert left == {"iter_5", "best_model"}
    monkeypatch.undo()
    assert record(config, tmp_path / "output", resume_model="auto")[-1]["iteration"] == 10


def _without_power_over_permissions():
    """Takes from a child of root the right to write where its permissions say no; others never had it."""
    drop_from_bounding_set, dac_override = 24, 1
    ctypes.CDLL(None).prctl(drop_from_bounding_set, dac_override, 0, 0, 0)


@pytest.mark.slow
def test_a_folder_without_write_permission(tmp_path):
    make_config(tmp_path)
    folder = tmp_path / "output"
    folder.mkdir()
    folder.chmod(0o555)
    started = Started(
        "faulty_training.py", training_words(tmp_path, iters=3), tmp_path, preexec_fn=_without_power_over_permissions
    )
    assert started.wait() == 1
    lines = [line for line in started.text().splitlines() if line.startswith("Error")]
    assert lines == [f"Error: --save_dir {folder}: cannot be written (Permission denied)"], started.text()[-2000:]
    assert not list(folder.iterdir())


@pytest.mark.parametrize("others", [False, True])
def test_a_folder_deleted_while_training(tmp_path, monkeypatch, others):
    """The run makes it again, unless another run has taken the name since."""
    held = []

    class Deleting(RecordingTrainer):
        def step(self, batches):
            if self.state.iteration == 7:
                shutil.rmtree(self.save_dir)
                if others:
                    held.append(RunFolder(self.save_dir))
            return super().step(batches)

    config = make_config(tmp_path)
    monkeypatch.setattr("recording.RecordingTrainer", Deleting)
    if others:
        with pytest.raises(CheckpointError, match="is training in this folder"):
            record(config, tmp_path / "output")
        held[0].close()
    else:
        record(config, tmp_path / "output")
        assert checkpoint.find_resume("auto", tmp_path / "output").name == "iter_10"
        with pytest.raises(CheckpointError, match="is training"):  # the lock is held anew by whoever opens it next
            first = RunFolder(tmp_path / "output")
            try:
                RunFolder(tmp_path / "output")
            finally:
                first.close()


def test_the_checkpoint_just_written_survives_a_clock_set_back(tmp_path, monkeypatch):
    config = make_config(tmp_path)
    times = iter(range(10**6, 0, -1000))
    monkeypatch.setattr(checkpoint.time, "time", lambda: float(next(times)))
    record(config, tmp_path / "output", save_interval=2, keep_checkpoint_max=1)
    assert [path.name for path in (tmp_path / "output").glob("iter_*")] == ["iter_10"]


def test_rotation_never_half_removes_under_a_valid_name(tmp_path, monkeypatch):
    """A folder without its manifest would be read as one of PaddleSeg, and its states would be lost."""
    config = make_config(tmp_path)
    record(config, tmp_path / "output")
    names = []
    monkeypatch.setattr(checkpoint.shutil, "rmtree", lambda path, **_: names.append(path.name))
    checkpoint.remove_old(tmp_path / "output", 1)
    assert len(names) == 2 and names[0] == "removed" and names[1].startswith(".tmp-")  # the marker beside it goes last
    monkeypatch.undo()
    recover(tmp_path / "output")
    left = sorted(path.name for path in (tmp_path / "output").iterdir() if path.is_dir())
    assert left == ["best_model", "iter_10"]


# ------------------------------------------------------------------------------------------ real processes


@pytest.mark.slow
def test_one_run_per_folder_and_free_after_a_kill(tmp_path):
    """Data loading processes, which outlive the kill by some seconds, do not keep the lock."""
    make_config(tmp_path)
    slow = {"kind": "slow", "seconds": 0.2}
    words = training_words(tmp_path, [slow], iters=1000, save_interval=3, num_workers=2)
    first = Started("faulty_training.py", words, tmp_path)
    first.wait_for("iter: 4/1000")
    second = Started("faulty_training.py", words, tmp_path)
    assert second.wait() == 1
    assert f"Error: --save_dir {tmp_path / 'output'}: process {first.process.pid} on " in second.text()
    at = first.text().count("[TRAIN]")
    first.wait_for(f"iter: {at + 2}/1000")
    first.process.kill()
    first.process.wait()
    RunFolder(tmp_path / "output").close()
    assert checkpoint.find_resume("auto", tmp_path / "output") is not None
    first.require_nothing_left()
    second.require_nothing_left()


def _stopped_at(started, tmp_path):
    assert started.wait(60) == 0, started.text()[-3000:]
    started.require_nothing_left()
    at = int(re.search(r"stopped by signal at iter (\d+)", started.text()).group(1))
    assert checkpoint.find_resume("auto", tmp_path / "output").name == f"iter_{at}"
    return at


@pytest.mark.parametrize(
    "name, group",
    [("SIGINT", True), pytest.param("SIGTERM", True, marks=pytest.mark.slow),
     pytest.param("SIGINT", False, marks=pytest.mark.slow), pytest.param("SIGTERM", False, marks=pytest.mark.slow)],
)  # fmt: skip
def test_a_signal_saves_and_auto_goes_on(tmp_path, name, group):
    """Also one to the whole process group, as a terminal's Ctrl-C and the launcher's SIGTERM are: workers go on."""
    config = make_config(tmp_path, ["iters=1000"])
    slow = {"kind": "slow", "seconds": 0.2}
    words = training_words(tmp_path, [slow], iters=1000, save_interval=1000, num_workers=2)
    started = Started("faulty_training.py", words, tmp_path, start_new_session=True)
    started.wait_for("iter: 3/1000")
    number = getattr(signal, name)
    for _ in range(3):  # the launcher's way
        (os.killpg if group else os.kill)(started.process.pid, number)
        time.sleep(0.1)
    at = _stopped_at(started, tmp_path)
    steps = record(make_config(tmp_path, [f"iters={at + 2}"]), tmp_path / "output", resume_model="auto", do_eval=False)
    assert [step["iteration"] for step in steps] == [at + 1, at + 2] and config


def test_a_signal_during_evaluation_ends_it_and_the_resumed_run_does_it(tmp_path, monkeypatch):
    config = make_config(tmp_path)
    whole = record(config, tmp_path / "whole")
    asked = []

    def signal_at_second_batch(label_and_more):
        asked.append(1)
        if len(asked) == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    from paddle_dnl.evaluation import evaluator

    scores = evaluator._scores
    monkeypatch.setattr(evaluator, "_scores", lambda *args: signal_at_second_batch(args) or scores(*args))
    first = record(config, tmp_path / "parts")
    assert len(asked) == 2 and first == whole[:5]
    monkeypatch.undo()
    assert record(config, tmp_path / "parts", resume_model="auto") == whole[5:]
    for name in ("iter_5", "iter_10"):
        left, right = (read_pickle(tmp_path / run / name / "model.pdstates") for run in ("whole", "parts"))
        assert left == right and left["best_miou"] > 0
    for name in ("best_model", "iter_5"):
        ours, theirs = (tiny_training.weights(tmp_path / run / name) for run in ("whole", "parts"))
        assert all((value == theirs[key]).all() for key, value in ours.items())


def test_asking_twice_by_hand_ends_at_once(monkeypatch):
    from paddle_dnl.distributed.signals import StopSignal

    stop = StopSignal()
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.seen
        stop._first -= 2
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)
    finally:
        stop.restore()
