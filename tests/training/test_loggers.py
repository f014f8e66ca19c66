# SPDX-License-Identifier: Apache-2.0
"""Curves and pictures for VisualDL, TensorBoard and wandb: the same numbers, one interface, and no harm to the training."""

import csv
import struct
import sys
import types

import paddle_dnl  # noqa: F401
from paddle_dnl.cli import train as train_program
from paddle_dnl.errors import DataError, UsageError
from paddle_dnl.training.records import loggers

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event
from tiny_training import train, write_config


def _events(folder):
    """(tag, step) -> value, and tags of pictures: TFRecord's length, checksum, content, checksum."""
    found, pictures = {}, []
    for path in sorted(folder.glob("events.out.*")):
        data = path.read_bytes()
        at = 0
        while at < len(data):
            (size,) = struct.unpack_from("<Q", data, at)
            event = Event.FromString(data[at + 12 : at + 12 + size])
            at += size + 16
            for value in event.summary.value:
                if value.HasField("image"):
                    pictures.append(value.tag)
                else:
                    found[(value.tag, event.step)] = value.simple_value
    return found, pictures


def _table(folder):
    with open(folder / "scalars.csv", newline="") as file:
        return {(row["tag"], int(row["iteration"])): float(row["value"]) for row in csv.DictReader(file)}


class _Wandb(types.ModuleType):
    """Records what it is given, as wandb's interface is documented."""

    def __init__(self):
        super().__init__("wandb")
        self.__spec__ = types.SimpleNamespace()
        self.inits, self.logged, self.finished = [], {}, 0

    def init(self, **given):
        self.inits.append(given)
        self.id = given["id"] or "run7"
        return self

    def log(self, values, step):
        for tag, value in values.items():
            self.logged[(tag, step)] = value

    def finish(self):
        self.finished += 1

    @staticmethod
    def Image(rgb):  # noqa: N802  wandb's name
        return rgb.shape


def test_all_loggers_hold_the_numbers_of_the_table(tmp_path, monkeypatch):
    wandb = _Wandb()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    given = {"do_eval": True, "loggers": ("visualdl", "tensorboard", "wandb"), "save_interval": 2}
    train(tmp_path, ["iters=4"], **given)
    folder = tmp_path / "output"
    table = _table(folder)
    events, pictures = _events(folder / "tensorboard")
    assert {"Train/loss", "Train/lr", "Evaluate/mIoU"} <= {tag for tag, _ in table}
    assert set(events) == set(table) and pictures == ["Evaluate/prediction"] * 2
    numbers = {key: value for key, value in wandb.logged.items() if not isinstance(value, tuple)}
    for key, value in table.items():
        assert events[key] == pytest.approx(value, rel=1e-6) and numbers[key] == value
    assert wandb.logged[("Evaluate/prediction", 4)] == (24, 72, 3) and wandb.finished == 1
    assert wandb.inits[0]["config"]["iters"] == 4 and wandb.inits[0]["id"] is None
    assert len(list(folder.glob("vdlrecords.*"))) == 1

    train(tmp_path, ["iters=6"], resume_model="auto", **given)  # goes on in the same run
    assert wandb.inits[1]["id"] == "run7" and ("Train/loss", 6) in wandb.logged
    assert ("Train/loss", 6) in _events(folder / "tensorboard")[0]


def test_the_number_of_a_run_leads_to_no_other_folder(tmp_path, monkeypatch):
    """It is a part of the name of wandb's folder, and a stranger's run may bring one."""
    monkeypatch.setitem(sys.modules, "wandb", _Wandb())
    for number in ("../../elsewhere", "a/b", ""):
        (tmp_path / "wandb_run.txt").write_text(number)
        with pytest.raises(DataError, match="wandb_run.txt: .* is not the number of a wandb run"):
            loggers.WeightsAndBiases(tmp_path, 2, {})


def test_a_logger_that_fails_is_left_out(tmp_path, monkeypatch, caplog):
    def fail(*_):
        raise ConnectionError("no route")

    monkeypatch.setattr(loggers.TensorBoard, "scalars", fail)
    train(tmp_path, ["iters=2"], loggers=("tensorboard", "visualdl"))
    said = [r.getMessage() for r in caplog.records if "is disabled" in r.getMessage()]
    assert said == ["--logger tensorboard: failed and is disabled: ConnectionError: no route"]
    assert ("Train/loss", 2) in _table(tmp_path / "output")


def test_a_missing_library_is_said_before_data_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(loggers.importlib.util, "find_spec", lambda name: None if name == "wandb" else object())
    config = write_config(tmp_path)
    for path in (tmp_path / "data").glob("*.png"):
        path.unlink()
    arguments = ["--config", str(config), "--save_dir", str(tmp_path / "o"), "--logger", "wandb"]
    with pytest.raises(UsageError, match="--logger wandb: wandb is not installed; pip install wandb"):
        train_program.main(arguments)
    assert not (tmp_path / "o").exists()


def test_names():
    assert train_program.LOGGERS == loggers.NAMES
    assert np.all([name in loggers._CLASSES for name in loggers.NAMES])
