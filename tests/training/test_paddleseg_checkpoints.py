# SPDX-License-Identifier: Apache-2.0
"""Checkpoints as PaddleSeg's releases write them: resumed, or refused in one line with what to do."""

from paddle_dnl.errors import CheckpointError
from paddle_dnl.training.checkpoints import checkpoint, restoring

import numpy as np
import paddle
import pytest


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
    assert restoring.load_checkpoint(folder, model=model, optimizer=optimizer) == {"iteration": 3}
    for after in (trained, (model, optimizer)):
        _train(*after, 2)
    np.testing.assert_array_equal(model[0].weight.numpy(), trained[0][0].weight.numpy())
    renamed = _write(tmp_path / "mine", *trained, {**states, "iter": 5})
    assert restoring.load_checkpoint(renamed, model=model, optimizer=_build_for(model)) == {"iteration": 5}


def _build_for(model):
    return paddle.optimizer.Momentum(paddle.optimizer.lr.PolynomialDecay(0.1, 100), parameters=model.parameters())


def test_our_states_without_a_manifest_stay_damaged(tmp_path, trained):
    folder = tmp_path / "iter_3"
    checkpoint.save_checkpoint(folder, model=trained[0], optimizer=trained[1], states={"iteration": 3})
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
        restoring.load_checkpoint(folder, model=model, optimizer=optimizer)
        _train(model, optimizer, 1)  # which slots are needed shows here
    assert "\n" not in str(raised.value)
    model, optimizer = _build()
    found = restoring.load_checkpoint(folder, model=model, optimizer=optimizer, fresh_optimizer=True)
    assert found == {"iteration": 3} and optimizer.get_lr() == trained[1].get_lr()
    fresh = paddle.nn.Sequential(paddle.nn.Conv2D(3, 4, 3), paddle.nn.Conv2D(4, 2, 1))
    fresh.set_state_dict(trained[0].state_dict())
    plain = paddle.optimizer.Momentum(trained[1].get_lr(), parameters=fresh.parameters())
    x = paddle.ones([1, 3, 8, 8])
    for net, rule in ((model, optimizer), (fresh, plain)):
        (net(x) ** 2).mean().backward()
        rule.step()
    np.testing.assert_array_equal(model[1].weight.numpy(), fresh[1].weight.numpy())


def test_folder_of_a_run(tmp_path, trained):
    for i in (1, 2):
        _write(tmp_path / "run" / f"iter_{i}", *trained)
    (tmp_path / "run" / "iter_2" / "model.pdopt").unlink()
    assert checkpoint.find_resume(str(tmp_path / "run"), tmp_path / "other").name == "iter_1"
    (tmp_path / "run" / "iter_1" / "model.pdparams").unlink()
    with pytest.raises(CheckpointError, match="no checkpoint in this folder is whole"):
        checkpoint.find_resume(str(tmp_path / "run"), tmp_path / "other")
