# SPDX-License-Identifier: Apache-2.0
"""What a resumed run finds: clocks that go back, folders that are half there, other file systems, signals at odd moments."""

import errno
import gc
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from paddle_dnl.config import Config
from paddle_dnl.distributed import collectives
from paddle_dnl.errors import CheckpointError
from paddle_dnl.evaluation import evaluator
from paddle_dnl.files.atomic import make_temporary
from paddle_dnl.models import start_weights
from paddle_dnl.training import nan_guard, trainer
from paddle_dnl.training.checkpoints import checkpoint, restoring
from paddle_dnl.training.checkpoints.run_folder import LOCK, RunFolder
from paddle_dnl.weights.safe_pickle import read_pickle

import paddle
import pytest
import recording
import whole_checkpoints
from recording import make_config, record


@pytest.fixture
def said(caplog):
    """Lines of the package's logger."""
    caplog.set_level("INFO")
    return lambda: "\n".join(caplog.messages)


def _as_paddleseg(ours: Path, theirs: Path) -> Path:
    """The two files that its training loop writes."""
    theirs.mkdir(parents=True)
    for name in ("model.pdparams", "model.pdopt"):
        shutil.copy(ours / name, theirs / name)
    return theirs


# ------------------------------------------------------------------------------------------ which one


def test_auto_takes_the_last_saved_whatever_the_clock_says(tmp_path, monkeypatch):
    config = make_config(tmp_path)
    times = iter(range(10**6, 0, -1000))
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.time, "time", lambda: float(next(times)))
        record(config, tmp_path / "output", save_interval=2, do_eval=False)
    names = [path.name for path in checkpoint.iteration_folders(tmp_path / "output")]
    assert names == [f"iter_{i}" for i in (2, 4, 6, 8, 10)]
    assert checkpoint.find_resume("auto", tmp_path / "output").name == "iter_10"


@pytest.mark.parametrize("left", [("model.pdopt", "model.pdstates"), ("config.yml",), ("model.pdopt", "config.yml")])
def test_a_half_removed_folder_is_not_taken_for_one_of_paddleseg(tmp_path, left):
    """`rm -r` in the middle: the manifest is gone, and with it the proof that the rest is there."""
    config = make_config(tmp_path)
    record(config, tmp_path / "output", do_eval=False)
    newest = tmp_path / "output" / "iter_10"
    for path in newest.iterdir():
        if path.name not in ("model.pdparams", *left):
            path.unlink()
    assert checkpoint.find_resume("auto", tmp_path / "output").name == "iter_5"
    with pytest.raises(CheckpointError, match="iter_10: .*manifest.json is missing.*Whole is .*iter_5"):
        record(config, tmp_path / "output", resume_model=str(newest))


def test_auto_passes_over_what_has_no_optimizer_and_prefers_manifests(tmp_path):
    config = make_config(tmp_path)
    record(config, tmp_path / "ours", do_eval=False)
    theirs = _as_paddleseg(tmp_path / "ours" / "iter_5", tmp_path / "output" / "iter_20")
    assert checkpoint.find_resume("auto", tmp_path / "output") == theirs
    weights_only = _as_paddleseg(tmp_path / "ours" / "iter_5", tmp_path / "output" / "iter_30")
    (weights_only / "model.pdopt").unlink()
    assert checkpoint.find_resume("auto", tmp_path / "output") == theirs
    ours = tmp_path / "output" / "iter_5"
    shutil.copytree(tmp_path / "ours" / "iter_5", ours)
    assert checkpoint.find_resume("auto", tmp_path / "output") == ours


# ------------------------------------------------------------------------------------------ the lock


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_can_be_trained_on(tmp_path, monkeypatch, number, said):
    def without(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", without)
    RunFolder(tmp_path / "output").close()
    assert said().count("cannot be locked") == 1 and os.strerror(number) in said()


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EACCES])
def test_a_held_lock_is_one(tmp_path, monkeypatch, number):
    def held(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", held)
    with pytest.raises(CheckpointError, match="is training in this folder"):
        RunFolder(tmp_path / "output")


def test_a_folder_that_cannot_be_tidied_is_said_and_let_go(tmp_path, monkeypatch):
    def fails(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    (tmp_path / "output").mkdir()
    (make_temporary(tmp_path / "output" / "iter_5").parent / "old").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", fails)
        with pytest.raises(CheckpointError, match="output: cannot be written .Input/output error") as kept:
            RunFolder(tmp_path / "output")
    assert kept and _is_free(tmp_path / "output")


def _is_free(folder: Path) -> bool:
    """As another process sees it."""
    code = f"import fcntl; fcntl.flock(open({str(folder / LOCK)!r}), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    return subprocess.run([sys.executable, "-c", code], stderr=subprocess.DEVNULL).returncode == 0


def test_a_failed_start_lets_the_folder_go(tmp_path):
    """Also while a notebook keeps the exception and with it all that its frames hold."""
    config = make_config(tmp_path)
    record(config, tmp_path / "output", do_eval=False)
    kept = []
    other = make_config(tmp_path, ["optimizer.type=Momentum", "optimizer.momentum=0.9"])
    try:
        record(other, tmp_path / "output", resume_model="auto")
    except CheckpointError as error:
        kept.append(error)
    assert kept and _is_free(tmp_path / "output")


def test_a_forgotten_folder_is_free(tmp_path):
    RunFolder(tmp_path / "output")
    gc.collect()
    assert _is_free(tmp_path / "output")


# ------------------------------------------------------------------------------------------ between two renames


@pytest.mark.parametrize("name", ["best_model", "iter_10"])
def test_a_name_lost_between_two_renames_can_be_resumed(tmp_path, name):
    config = make_config(tmp_path)
    record(config, tmp_path / "output")
    aside = make_temporary(tmp_path / "output" / name).parent / "old"
    shutil.copytree(tmp_path / "output" / "iter_5", aside)
    shutil.rmtree(tmp_path / "output" / name)
    steps = record(config, tmp_path / "output", resume_model=str(tmp_path / "output" / name))
    assert [step["iteration"] for step in steps] == [6, 7, 8, 9, 10]


def test_a_failed_rename_brings_the_old_one_back(tmp_path, monkeypatch):
    config = make_config(tmp_path)
    record(config, tmp_path / "output", do_eval=False)
    folder, rename = tmp_path / "output" / "iter_5", os.rename

    def fails_once(source, target):
        if Path(target) == folder and Path(source).name == "new":
            raise OSError(errno.EIO, "Input/output error")
        rename(source, target)

    monkeypatch.setattr(os, "rename", fails_once)
    with pytest.raises(CheckpointError, match="Input/output error"):
        checkpoint.link_checkpoint(tmp_path / "output" / "iter_10", folder)
    assert checkpoint.verify(folder)["iteration"] == 5
    assert sorted(p.name for p in (tmp_path / "output").glob(".*-*")) == []


# ------------------------------------------------------------------------------------------ ranks


def test_the_first_rank_decides_for_all_what_is_resumed(tmp_path, monkeypatch):
    """This process is a second rank on a machine where the folder does not exist; it must not fetch start weights."""
    config = make_config(tmp_path)
    record(config, tmp_path / "output", do_eval=False)
    folder = tmp_path / "output" / "iter_5"
    fetched = []
    optimizer = trainer.Trainer(config, trainer.TrainOptions(save_dir=str(tmp_path / "other"), seed=7)).optimizer
    read = restoring.read(folder, optimizer=optimizer, with_average=False)
    monkeypatch.setattr(start_weights, "resolve_pretrained", lambda *_: fetched.append(1))
    monkeypatch.setattr(collectives, "is_main", lambda: False)
    shared = collectives.broadcast_object
    monkeypatch.setattr(
        collectives, "broadcast_object", lambda value, what="": folder if value is None else shared(value)
    )
    monkeypatch.setattr(collectives, "broadcast_arrays", lambda contents, what: read if contents is None else contents)
    options = trainer.TrainOptions(save_dir=str(tmp_path / "elsewhere"), seed=7, resume_model="auto")
    assert trainer.Trainer(config, options).state.iteration == 5 and not fetched


# ------------------------------------------------------------------------------------------ the best


def test_the_best_comes_along_into_a_new_folder(tmp_path):
    config = make_config(tmp_path)
    record(config, tmp_path / "first", use_ema=True)
    states = read_pickle(tmp_path / "first" / "iter_10" / "model.pdstates")
    opts = ["iters=12", "lr_scheduler.learning_rate=0.0"]
    record(make_config(tmp_path, opts), tmp_path / "more", use_ema=True, do_eval=False,
           resume_model=str(tmp_path / "first" / "iter_10"))  # fmt: skip
    for name, score in (("best_model", "best_miou"), ("ema_best_model", "best_ema_miou")):
        carried = tmp_path / "more" / name
        assert checkpoint.verify(carried) is not None
        assert read_pickle(carried / "model.pdstates")[score] == states[score]
    after = read_pickle(tmp_path / "more" / "iter_12" / "model.pdstates")
    assert after["best_miou"] == states["best_miou"] and after["best_ema_miou"] == states["best_ema_miou"]


@pytest.mark.parametrize("place", ["gone", "damaged", "another"])
def test_a_best_that_is_nowhere_is_not_spoken_of(tmp_path, place, said):
    """Scores so high that no later evaluation beats them: without a fresh start there would never be a best_model."""
    config = make_config(tmp_path)
    record(config, tmp_path / "first", use_ema=True)
    source = tmp_path / "first" / "iter_5"
    states = read_pickle(source / "model.pdstates")
    checkpoint.link_checkpoint(source, source, {**states, "best_miou": 1.0, "best_iteration": 3, "best_ema_miou": 1.0})
    for name in ("best_model", "ema_best_model"):
        best = tmp_path / "first" / name
        if place == "gone":
            shutil.rmtree(best)
        elif place == "damaged":
            checkpoint.link_checkpoint(source, best)
            weights = best / "model.pdparams"
            data = weights.read_bytes()
            weights.unlink()
            weights.write_bytes(data[:-1])
    record(config, tmp_path / "more", use_ema=True, resume_model=str(source))
    for name, score in (("best_model", "best_miou"), ("ema_best_model", "best_ema_miou")):
        assert checkpoint.verify(tmp_path / "more" / name)["iteration"] == 10
        assert 0 <= read_pickle(tmp_path / "more" / name / "model.pdstates")[score] <= 1
        assert f"no {name}" in said()


def test_a_best_that_was_deleted_while_training_is_not_spoken_of(tmp_path, monkeypatch):
    class Deleting(recording.RecordingTrainer):
        def step(self, batches):
            if self.state.iteration == 7:
                self.state.best_miou = 1.0
                shutil.rmtree(self.save_dir)
            return super().step(batches)

    monkeypatch.setattr("recording.RecordingTrainer", Deleting)
    record(make_config(tmp_path), tmp_path / "output")
    assert checkpoint.verify(tmp_path / "output" / "best_model")["iteration"] == 10


def test_a_signal_in_the_evaluation_that_a_resumed_run_owes(tmp_path, monkeypatch, said):
    config = make_config(tmp_path)
    whole = record(config, tmp_path / "whole")
    scores = evaluator._scores

    def stopped(*args):
        if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:  # not in the trial before the first step
            os.kill(os.getpid(), signal.SIGTERM)
        return scores(*args)

    with monkeypatch.context() as patch:
        patch.setattr(evaluator, "_scores", stopped)
        assert record(config, tmp_path / "parts") == whole[:5]
        said_before = said().count("stopped by signal at iter 5")
        assert record(config, tmp_path / "parts", resume_model="auto") == []
    assert said().count("stopped by signal at iter 5") == said_before + 1
    assert read_pickle(tmp_path / "parts" / "iter_5" / "model.pdstates")["evaluation_due"]
    assert record(config, tmp_path / "parts", resume_model="auto") == whole[5:]
    for name in ("iter_5", "iter_10"):
        left, right = (read_pickle(tmp_path / run / name / "model.pdstates") for run in ("whole", "parts"))
        assert left == right and left["best_miou"] > 0


# ------------------------------------------------------------------------------------------ old and foreign folders


def _as_of_the_first_version(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    for key in ("optimizer", "checksum", "saved_at"):
        del manifest[key]
    (folder / "manifest.json").write_text(json.dumps({**manifest, "format": 1}))


def test_an_old_manifest_gets_new_states(tmp_path):
    config = make_config(tmp_path)
    record(config, tmp_path / "output", do_eval=False)
    folder = tmp_path / "output" / "iter_5"
    _as_of_the_first_version(folder)
    states = {**read_pickle(folder / "model.pdstates"), "best_miou": 0.25}
    checkpoint.link_checkpoint(folder, folder, states)
    assert checkpoint.verify(folder)["iteration"] == 5
    assert record(config, tmp_path / "output", do_eval=False, resume_model=str(folder))[0]["iteration"] == 6


@pytest.mark.parametrize(
    "before, now", [("Momentum", "Adam"), ("Adam", "Momentum"), ("SGD", "Adam"), ("Adam", "SGD"), ("Lamb", "AdamW")]
)
def test_paddlesegs_state_of_another_optimizer_is_refused(tmp_path, before, now):
    def build(name):
        model = paddle.nn.Sequential(paddle.nn.Conv2D(3, 4, 3), paddle.nn.Conv2D(4, 2, 1))
        return model, getattr(paddle.optimizer, name)(0.1, parameters=model.parameters())

    folder = tmp_path / "iter_7"
    folder.mkdir()
    model, optimizer = build(before)
    model(paddle.ones([1, 3, 8, 8])).mean().backward()
    optimizer.step()
    paddle.save(model.state_dict(), str(folder / "model.pdparams"))
    paddle.save(optimizer.state_dict(), str(folder / "model.pdopt"))
    model, optimizer = build(before)
    assert whole_checkpoints.load_checkpoint(folder, model=model, optimizer=optimizer) == {"iteration": 7}
    model, optimizer = build(now)
    if before == "Lamb":  # has the slots of Adam and cannot be told from it
        whole_checkpoints.load_checkpoint(folder, model=model, optimizer=optimizer)
        return
    with pytest.raises(CheckpointError, match="iter_7/model.pdopt: .*another optimizer.*model.pretrained="):
        whole_checkpoints.load_checkpoint(folder, model=model, optimizer=optimizer)


# ------------------------------------------------------------------------------------------ files


def test_the_configuration_is_utf8_whatever_the_locale(tmp_path, monkeypatch):
    """As the configuration reader has it; here the locale is GBK."""
    folder = tmp_path / "图"
    folder.mkdir()
    config = make_config(folder)
    monkeypatch.setattr(io, "text_encoding", lambda encoding, *_: encoding or "gbk")
    record(config, folder / "output", do_eval=False)
    for path in (folder / "output" / "config.yml", folder / "output" / "iter_10" / "config.yml"):
        assert "图/data" in path.read_text(encoding="utf-8")
        Config(str(path))


def test_the_configuration_is_written_whole(tmp_path, monkeypatch):
    """One that cannot be written leaves the old one."""
    config = make_config(tmp_path)
    record(config, tmp_path / "output", do_eval=False)
    path = tmp_path / "output" / "config.yml"
    before, rename = path.read_text(), os.rename

    def full(source, target):
        if Path(target) == path:
            raise OSError(errno.ENOSPC, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(os, "rename", full)
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(CheckpointError, match="config.yml: .*No space left"):
        record(make_config(tmp_path, ["iters=11"]), tmp_path / "output", resume_model="auto", do_eval=False)
    assert path.read_text() == before
    assert not list((tmp_path / "output").glob(".tmp-*"))


def test_the_last_good_checkpoint_is_whole_and_of_this_run(tmp_path, monkeypatch):
    config = make_config(tmp_path)
    record(config, tmp_path / "output", do_eval=False)

    class Damaging(recording.RecordingTrainer):
        def step(self, batches):
            if self.state.iteration == 4:
                self.writer.wait()
                raise AssertionError(nan_guard._advice(self.saved))
            return super().step(batches)

    monkeypatch.setattr("recording.RecordingTrainer", Damaging)
    with pytest.raises(AssertionError, match="Last good checkpoint: none yet"):
        record(config, tmp_path / "output", do_eval=False)
    with pytest.raises(AssertionError, match="Last good checkpoint: .*iter_3"):
        record(config, tmp_path / "output", do_eval=False, save_interval=1)
    whole = [tmp_path / "output" / f"iter_{i}" for i in (1, 2, 3)]
    path = whole[-1] / "model.pdopt"
    path.write_bytes(path.read_bytes()[:-1])
    assert "iter_2." in nan_guard._advice(whole)
