# SPDX-License-Identifier: Apache-2.0
"""Checkpoints as PaddleSeg's releases write them: resumed, or refused in one line with what to do."""

import shutil

from paddle_dnl.cli import train
from paddle_dnl.errors import CheckpointError
from paddle_dnl.training.checkpoints import checkpoint

import numpy as np
import paddle
import pytest
import tiny_training
import whole_checkpoints


def _build():
    model = paddle.nn.Sequential(paddle.nn.Conv2D(3, 4, 3), paddle.nn.Conv2D(4, 2, 1))
    schedule = paddle.optimizer.lr.PolynomialDecay(0.1, 100)
    return model, paddle.optimizer.Momentum(schedule, parameters=model.parameters())


def _train(model, optimizer, steps):
    for i in range(steps):
        x = paddle.to_tensor(np.random.RandomState(i).randn(2, 3, 8, 8).astype("float32"))
        (model(x) ** 2).mean().backward()
        optimizer.step()
        optimizer.clear_grad()
        optimizer._learning_rate.step()


def _write(folder, model, optimizer, states=None, change=lambda state: state):
    """As `paddleseg.core.train` does, release 2.9.1 with `states`."""
    folder.mkdir(parents=True)
    paddle.save(model.state_dict(), str(folder / "model.pdparams"))
    paddle.save(change(optimizer.state_dict()), str(folder / "model.pdopt"))
    if states is not None:
        paddle.save(states, str(folder / "model.pdstates"))
    return folder


@pytest.fixture
def trained():
    model, optimizer = _build()
    _train(model, optimizer, 3)
    return model, optimizer


def test_states_of_2_9_1_and_a_name_without_a_number(tmp_path, trained):
    states = {"mIoU": np.float64(0.25), "Acc": 0.5, "iter": 3}
    folder = _write(tmp_path / "iter_3", *trained, states)
    folder.joinpath("model.info.json").write_text("{}")  # uniform_output_enabled
    model, optimizer = _build()
    assert whole_checkpoints.load_checkpoint(folder, model=model, optimizer=optimizer) == {"iteration": 3}
    for after in (trained, (model, optimizer)):
        _train(*after, 2)
    np.testing.assert_array_equal(model[0].weight.numpy(), trained[0][0].weight.numpy())
    renamed = _write(tmp_path / "mine", *trained, {**states, "iter": 5})
    assert whole_checkpoints.load_checkpoint(renamed, model=model, optimizer=_build_for(model)) == {"iteration": 5}


def _build_for(model):
    return paddle.optimizer.Momentum(paddle.optimizer.lr.PolynomialDecay(0.1, 100), parameters=model.parameters())


def test_our_states_without_a_manifest_stay_damaged(tmp_path, trained):
    folder = tmp_path / "iter_3"
    whole_checkpoints.save_checkpoint(folder, model=trained[0], optimizer=trained[1], states={"iteration": 3})
    (folder / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match="manifest.json is missing"):
        checkpoint.verify(folder)
    (folder / "config.yml").unlink()
    with pytest.raises(CheckpointError, match="manifest.json is missing"):
        checkpoint.verify(folder)


def _without_schedule(state):
    return {key: value for key, value in state.items() if key != "LR_Scheduler"}


def _without_a_slot(state):
    slot = next(key for key in state if "velocity" in key)
    return {key: value for key, value in state.items() if key != slot}


@pytest.mark.parametrize("change, message", [
    (_without_schedule, "no state of the learning-rate schedule"),
    (_without_a_slot, "a slot of Momentum is missing"),
])  # fmt: skip
def test_what_an_optimizer_file_lacks_and_the_way_on(tmp_path, trained, change, message):
    folder = _write(tmp_path / "iter_3", *trained, change=change)
    model, optimizer = _build()
    with pytest.raises(CheckpointError, match=f"{message}.*--fresh_optimizer") as raised:
        whole_checkpoints.load_checkpoint(folder, model=model, optimizer=optimizer)
        _train(model, optimizer, 1)  # which slots are needed shows here
    assert "\n" not in str(raised.value)
    model, optimizer = _build()
    found = whole_checkpoints.load_checkpoint(folder, model=model, optimizer=optimizer, fresh_optimizer=True)
    assert found == {"iteration": 3} and optimizer.get_lr() == trained[1].get_lr()
    fresh = paddle.nn.Sequential(paddle.nn.Conv2D(3, 4, 3), paddle.nn.Conv2D(4, 2, 1))
    fresh.set_state_dict(trained[0].state_dict())
    plain = paddle.optimizer.Momentum(trained[1].get_lr(), parameters=fresh.parameters())
    x = paddle.ones([1, 3, 8, 8])
    for net, rule in ((model, optimizer), (fresh, plain)):
        (net(x) ** 2).mean().backward()
        rule.step()
    np.testing.assert_array_equal(model[1].weight.numpy(), fresh[1].weight.numpy())


def _program(folder, name, *words):
    """train.py up to step 4; returns its last checkpoint."""
    fixed = ["--device", "cpu", "--seed", "7", "--iters", "4", "--save_interval", "1"]
    train.main(["--config", str(folder / "config.yml"), "--save_dir", str(folder / name), *fixed, *words])
    return folder / name / "iter_4"


@pytest.fixture
def run(tmp_path):
    """A folder with a run `whole` of four steps."""
    tiny_training.write_config(tmp_path)
    _program(tmp_path, "whole")
    return tmp_path


def _differences(left, right):
    left, right = tiny_training.weights(left), tiny_training.weights(right)
    assert left.keys() == right.keys()
    return [key for key, value in left.items() if not np.array_equal(value, right[key])]


def test_fresh_optimizer_of_train_py_reads_no_optimizer(run):
    """With the flag the slots start at zero, whether a .pdopt is there or not, or is of another optimizer."""
    start = run / "whole" / "iter_2"
    kept = _program(run, "kept", "--resume_model", str(start))
    assert not _differences(run / "whole" / "iter_4", kept)
    fresh = _program(run, "fresh", "--resume_model", str(start), "--fresh_optimizer")
    assert len(_differences(run / "whole" / "iter_4", fresh)) > 5
    bare = run / "theirs" / "iter_2"
    bare.mkdir(parents=True)
    shutil.copy(start / "model.pdparams", bare)
    with pytest.raises(CheckpointError, match="there is no model.pdopt.*--fresh_optimizer"):
        _program(run, "bare", "--resume_model", str(bare))
    assert not _differences(fresh, _program(run, "bare", "--resume_model", str(bare), "--fresh_optimizer"))
    text = (run / "config.yml").read_text().replace("type: SGD, momentum: 0.9", "type: Adam")
    (run / "config.yml").write_text(text)
    with pytest.raises(CheckpointError, match="of another optimizer, Momentum instead of Adam"):
        _program(run, "adam", "--resume_model", str(start))
    found = tiny_training.weights(_program(run, "adam", "--resume_model", str(start), "--fresh_optimizer"))
    assert any("moment2" in key for key in found)


def test_a_folder_of_a_run_is_resumed_from_its_newest_whole_checkpoint(run, caplog):
    """Through train.py: damaged ones are passed over, and neither older ones nor a folder's highest number are taken."""
    whole = run / "whole"
    shutil.copytree(whole / "iter_4", run / "end")
    shutil.rmtree(whole / "iter_4")
    (whole / "iter_3" / "model.pdopt").write_bytes(b"cut off")
    shutil.copytree(whole / "iter_1", whole / "iter_9")  # saved before iter_2
    caplog.set_level("INFO")
    found = _program(run, "on", "--resume_model", str(whole))
    assert not _differences(run / "end", found)
    assert "training 2 -> 4 iters" in caplog.text and "model.pdopt: damaged" in caplog.text


def test_folder_of_a_run(tmp_path, trained):
    for i in (1, 2):
        _write(tmp_path / "run" / f"iter_{i}", *trained)
    (tmp_path / "run" / "iter_2" / "model.pdopt").unlink()
    assert checkpoint.find_resume(str(tmp_path / "run"), tmp_path / "other").name == "iter_1"
    (tmp_path / "run" / "iter_1" / "model.pdparams").unlink()
    with pytest.raises(CheckpointError, match="no checkpoint in this folder is whole"):
        checkpoint.find_resume(str(tmp_path / "run"), tmp_path / "other")
