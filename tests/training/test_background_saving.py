# SPDX-License-Identifier: Apache-2.0
"""Checkpoints are written in the background, of the moment at which they were taken, and their failures are told."""

import errno
import os
import shutil
import signal
import threading
import time
from pathlib import Path

from paddle_dnl.errors import CheckpointError
from paddle_dnl.training.checkpoints import background, checkpoint
from paddle_dnl.training.checkpoints.snapshot import take_snapshot
from paddle_dnl.training.trainer import Trainer
from paddle_dnl.weights import manifest

import numpy as np
import paddle
import pytest
import tiny_training
import whole_checkpoints
from paddle import nn


def _training():
    model = nn.Sequential(nn.Conv2D(3, 4, 1), nn.BatchNorm2D(4))
    optimizer = paddle.optimizer.Adam(paddle.optimizer.lr.StepDecay(0.1, 2), parameters=model.parameters())
    return model, optimizer


def _step(model, optimizer):
    model(paddle.randn([2, 3, 4, 4])).square().sum().backward()
    optimizer.step()
    optimizer.clear_grad()


def test_a_snapshot_is_of_its_moment(tmp_path):
    """The same bytes as those of a checkpoint that was written at once, though training went on before they were written."""
    model, optimizer = _training()
    _step(model, optimizer)
    state = {"model": model, "optimizer": optimizer, "ema": model, "states": {"iteration": 1}}
    paddle.save(model.state_dict(), str(tmp_path / "expected.pdparams"))
    paddle.save(optimizer.state_dict(), str(tmp_path / "expected.pdopt"))
    snapshot = take_snapshot(**state)
    _step(model, optimizer)
    folder = checkpoint.write_snapshot(tmp_path / "iter_1", snapshot)
    for name in ("pdparams", "pdopt"):
        assert (folder / f"model.{name}").read_bytes() == (tmp_path / f"expected.{name}").read_bytes()
    assert (folder / checkpoint.EMA).read_bytes() == (folder / checkpoint.PARAMS).read_bytes()


def test_training_goes_on_while_a_checkpoint_is_written(tmp_path, monkeypatch):
    """Steps pass between the beginning and the end of a write; the next save, evaluation's names and the end wait for it."""
    steps, write, step, seen = [0], checkpoint.write_snapshot, Trainer.step, []

    def slow(folder, snapshot):
        assert threading.current_thread() is not threading.main_thread()
        assert not any(path.name.startswith(".tmp-") for path in folder.parent.iterdir()), "two at a time"
        before, until = steps[0], time.monotonic() + 20
        while steps[0] < min(before + 2, 10) and time.monotonic() < until:
            time.sleep(0.01)
        seen.append(steps[0] - before)
        return write(folder, snapshot)

    def counted(self, batches):
        steps[0] = self.state.iteration
        return step(self, batches)

    monkeypatch.setattr(checkpoint, "write_snapshot", slow)
    monkeypatch.setattr(Trainer, "step", counted)
    tiny_training.train(tmp_path)
    assert seen[0] >= 2
    assert sorted(path.name for path in (tmp_path / "output").glob("iter_*")) == ["iter_10", "iter_5"]
    for name in ("iter_5", "iter_10"):
        assert checkpoint.verify(tmp_path / "output" / name)["iteration"] == int(name[5:])


@pytest.mark.parametrize("at", [5, 10])
def test_a_failed_write_ends_the_training(tmp_path, monkeypatch, at):
    """At a step after it, or at the end."""

    def full_disk(folder, snapshot, write=checkpoint.write_snapshot):
        if snapshot.states["iteration"] == at:
            raise CheckpointError(f"{folder}: the checkpoint could not be written (No space left on device)")
        return write(folder, snapshot)

    monkeypatch.setattr(checkpoint, "write_snapshot", full_disk)
    with pytest.raises(CheckpointError, match=f"iter_{at}: .*No space left"):
        tiny_training.train(tmp_path, do_eval=True)
    assert [path.name for path in (tmp_path / "output").glob("iter_*")] == ["iter_5"][: at // 5 - 1]
    assert not list((tmp_path / "output").glob(".tmp-*"))


@pytest.mark.parametrize("launched, seconds, lines", [(True, 1.1, 1), (True, 0, 0), (False, 1.1, 0)])
def test_a_write_that_does_not_fit_into_the_launchers_time_is_said_once(
    tmp_path, monkeypatch, caplog, launched, seconds, lines
):
    """30 s after SIGTERM the launcher kills its ranks, perhaps in the second of two writes."""
    if launched:
        monkeypatch.setenv("PADDLE_TRAINER_ID", "0")
    if seconds:
        monkeypatch.setattr(background, "_LAUNCHER_SECONDS", 2.0)
    write = checkpoint.write_snapshot

    def slow(folder, snapshot):
        time.sleep(seconds)
        return write(folder, snapshot)

    monkeypatch.setattr(checkpoint, "write_snapshot", slow)
    tiny_training.train(tmp_path)
    assert caplog.text.count("paddle.distributed.launch kills its processes") == lines


def test_digests_are_computed_once(tmp_path, monkeypatch):
    """Of each file in a save, also where an evaluation follows; and in a resume, for which the manifest is read once."""
    digested, parsed = [], []
    digest, parse = manifest.file_digest, manifest._parse

    def counting(path):
        digested.append(path.name)
        return digest(path)

    def _parse(path):
        parsed.append(path.parent.name)
        return parse(path)

    for module in (manifest, checkpoint):
        monkeypatch.setattr(module, "file_digest", counting)
    monkeypatch.setattr(manifest, "_parse", _parse)
    tiny_training.train(tmp_path, do_eval=True, use_ema=True, save_interval=10)
    assert sorted(digested) == sorted([*checkpoint.MEMBERS[:-1], checkpoint.STATES])
    time.sleep(3 * manifest._TICK_SECONDS)
    digested.clear(), parsed.clear()
    tiny_training.train(tmp_path, ["iters=11"], do_eval=False, use_ema=True, resume_model="auto", save_interval=100)
    read = digested[: len(checkpoint.MEMBERS) - 1]
    assert sorted(read) == sorted(checkpoint.MEMBERS[:-1])
    assert parsed.count("iter_10") == 1
    assert len(digested) == 2 * len(read), "the second half is of the checkpoint that was written"


def test_a_changed_file_is_digested_again(tmp_path):
    """Also one of the same size, right after it was found whole."""
    model, optimizer = _training()
    _step(model, optimizer)
    folder = whole_checkpoints.save_checkpoint(
        tmp_path / "iter_1", model=model, optimizer=optimizer, states={"iteration": 1}
    )
    path = folder / checkpoint.PARAMS
    for pause in (0, 3 * manifest._TICK_SECONDS):
        time.sleep(pause)
        whole = path.read_bytes()
        checkpoint.verify(folder)
        changed = np.frombuffer(whole, np.uint8).copy()
        changed[-20] ^= 1
        path.write_bytes(changed.tobytes())
        with pytest.raises(CheckpointError, match="damaged"):
            checkpoint.verify(folder)
        path.write_bytes(whole)


def _names(folder):
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_folder_deleted_during_a_write_is_made_again(tmp_path, monkeypatch, moment):
    """With the checkpoint that was being written, whole; only the best model of before is forgotten."""
    write, deleted = checkpoint.write_snapshot, []

    def losing(folder, snapshot):
        is_first = snapshot.states["iteration"] == 10 and not deleted
        if is_first:
            deleted.append(folder)
            if moment == "before":
                shutil.move(folder.parent, tmp_path / "gone")  # at once, as logs are written into it meanwhile
        write(folder, snapshot)
        if is_first and moment == "after":
            shutil.move(folder.parent, tmp_path / "gone")  # at once, as logs are written into it meanwhile

    monkeypatch.setattr(checkpoint, "write_snapshot", losing)
    tiny_training.train(tmp_path, do_eval=True)
    assert deleted and _names(tmp_path / "output") == ["best_model", "iter_10"]
    for name in ("best_model", "iter_10"):
        assert checkpoint.verify(tmp_path / "output" / name)["iteration"] == 10


def test_a_signal_during_a_write(tmp_path, monkeypatch):
    """The write is finished, then the step's state is saved; a resumed run goes on from it."""
    write, sent = checkpoint.write_snapshot, []

    def signalled(folder, snapshot):
        if not sent:
            sent.append(snapshot.states["iteration"])
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.3)
        return write(folder, snapshot)

    monkeypatch.setattr(checkpoint, "write_snapshot", signalled)
    tiny_training.train(tmp_path, ["iters=200"], do_eval=False)
    found = _names(tmp_path / "output")
    assert "iter_5" in found and len(found) <= 2, found
    last = max(checkpoint.verify(tmp_path / "output" / name)["iteration"] for name in found)
    assert 5 <= last < 200
    tiny_training.train(tmp_path, [f"iters={last + 1}"], do_eval=False, resume_model="auto")
    assert checkpoint.verify(tmp_path / "output" / f"iter_{last + 1}")["iteration"] == last + 1


def test_a_copy_where_links_do_not_exist_is_on_the_disk(tmp_path, monkeypatch):
    model, optimizer = _training()
    _step(model, optimizer)
    source = whole_checkpoints.save_checkpoint(
        tmp_path / "iter_1", model=model, optimizer=optimizer, states={"iteration": 1}
    )

    def no_links(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    flushed, fsync = [], os.fsync

    def noted(handle):
        flushed.append(Path(os.readlink(f"/proc/self/fd/{handle}")).name)
        fsync(handle)

    monkeypatch.setattr(os, "link", no_links)
    monkeypatch.setattr(os, "fsync", noted)
    checkpoint.link_checkpoint(source, tmp_path / "best_model")
    assert {path.name for path in source.iterdir()} <= set(flushed)
