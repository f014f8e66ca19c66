# SPDX-License-Identifier: Apache-2.0
"""Checkpoint folders and the restricted reader."""

import json
import os
import pickle

from paddle_dnl.errors import CheckpointError, NonFiniteError
from paddle_dnl.files.atomic import make_temporary, recover
from paddle_dnl.training.checkpoints import checkpoint
from paddle_dnl.weights.loading import load_weights, read_params, write_safetensors

import numpy as np
import paddle
import pytest
import whole_checkpoints


def _build(optimizer="Momentum"):
    model = paddle.nn.Sequential(paddle.nn.Conv2D(3, 4, 3), paddle.nn.BatchNorm2D(4), paddle.nn.Conv2D(4, 2, 1))
    schedule = paddle.optimizer.lr.PolynomialDecay(0.1, 100)
    cls = getattr(paddle.optimizer, optimizer)
    return model, cls(schedule, parameters=model.parameters(), weight_decay=1e-3)


def _train(model, optimizer, iterations):
    for i in iterations:
        x = paddle.to_tensor(np.random.RandomState(i).randn(2, 3, 8, 8).astype("float32"))
        (model(x) ** 2).mean().backward()
        optimizer.step()
        optimizer.clear_grad()
        optimizer._learning_rate.step()


def _weights(model):
    return {key: value.numpy() for key, value in model.state_dict().items()}


def _save(folder, model, optimizer, iteration=5, **kwargs):
    states = {"iteration": iteration, "best_miou": 0.5}
    return whole_checkpoints.save_checkpoint(folder, model=model, optimizer=optimizer, states=states, **kwargs)


@pytest.mark.parametrize("name", ["Momentum", "Adam", "AdamW"])
def test_resume_is_bit_exact_although_other_layers_were_built(tmp_path, name):
    paddle.seed(1)
    model, optimizer = _build(name)
    start = _weights(model)
    _train(model, optimizer, range(10))
    expected = _weights(model)

    model, optimizer = _build(name)
    load_weights(model, start)
    _train(model, optimizer, range(5))
    _save(tmp_path / "iter_5", model, optimizer)

    for _ in range(3):  # shifts the generated names
        paddle.nn.Conv2D(2, 2, 1)
    model, optimizer = _build(name)
    states = whole_checkpoints.load_checkpoint(tmp_path / "iter_5", model=model, optimizer=optimizer)
    assert states == {"iteration": 5, "best_miou": 0.5}
    _train(model, optimizer, range(5, 10))
    for key, value in _weights(model).items():
        np.testing.assert_array_equal(value, expected[key], err_msg=key)


@pytest.mark.paddleseg
def test_paddleseg_reads_our_folder_and_we_read_its(tmp_path):
    from paddleseg.utils.utils import resume

    model, optimizer = _build()
    _train(model, optimizer, range(3))
    _save(tmp_path / "iter_3", model, optimizer, 3)
    expected = _weights(model)
    _train(model, optimizer, range(3, 4))
    assert resume(model, optimizer, str(tmp_path / "iter_3")) == 3
    np.testing.assert_array_equal(model.state_dict()["0.weight"].numpy(), expected["0.weight"])

    theirs = tmp_path / "theirs" / "iter_7"
    theirs.mkdir(parents=True)
    paddle.save(model.state_dict(), str(theirs / "model.pdparams"))
    paddle.save(optimizer.state_dict(), str(theirs / "model.pdopt"))
    model, optimizer = _build()
    assert whole_checkpoints.load_checkpoint(theirs, model=model, optimizer=optimizer) == {"iteration": 7}
    np.testing.assert_array_equal(model.state_dict()["0.weight"].numpy(), expected["0.weight"])


@pytest.mark.parametrize("name", ["model.pdparams", "model.pdopt", "model.pdstates"])
@pytest.mark.parametrize("damage", ["truncate", "flip", "remove"])
def test_damage_is_named(tmp_path, name, damage):
    model, optimizer = _build()
    _train(model, optimizer, range(1))
    folder = _save(tmp_path / "iter_5", model, optimizer)
    path = folder / name
    data = bytearray(path.read_bytes())
    if damage == "remove":
        path.unlink()
    else:
        data[len(data) // 2] ^= 1
        path.write_bytes(data[: len(data) // 2] if damage == "truncate" else data)
    with pytest.raises(CheckpointError, match=name if name != "model.pdparams" or damage != "remove" else "no model"):
        whole_checkpoints.load_checkpoint(folder, model=model, optimizer=optimizer)


def test_auto_takes_the_newest_whole_one_and_recovers_names(tmp_path):
    model, optimizer = _build()
    _save(tmp_path / "iter_5", model, optimizer, 5)
    _save(tmp_path / "iter_10", model, optimizer, 10)
    (tmp_path / "iter_10" / "model.pdparams").write_bytes(b"junk")
    assert checkpoint.find_resume("auto", tmp_path).name == "iter_5"
    # Killed between the two renames; and killed while a folder was filled.
    os.rename(tmp_path / "iter_5", make_temporary(tmp_path / "iter_5").parent / "old")
    (make_temporary(tmp_path / "iter_7") / "model.pdparams").write_bytes(b"half")
    recover(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["iter_10", "iter_5"]


def test_failed_write_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    model, optimizer = _build()
    folder = _save(tmp_path / "iter_5", model, optimizer)
    before = json.loads((folder / "manifest.json").read_text())

    def full_disk(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.paddle, "save", full_disk)
    with pytest.raises(CheckpointError, match="No space left"):
        _save(tmp_path / "iter_5", model, optimizer)
    assert [p.name for p in tmp_path.iterdir()] == ["iter_5"]
    assert checkpoint.verify(folder) == before


def test_weights_with_nan_are_not_written(tmp_path):
    model, optimizer = _build()
    model[0].bias.set_value(paddle.full([4], float("nan")))
    with pytest.raises(NonFiniteError, match="0.bias"):
        _save(tmp_path / "iter_5", model, optimizer)
    assert not list(tmp_path.iterdir())


def test_wrong_model_is_refused_with_names(tmp_path):
    model, _ = _build()
    state = _weights(model)
    state["0.weight"] = state["0.weight"][:, :2]
    del state["1._mean"]
    state["extra"] = np.zeros(1)
    with pytest.raises(CheckpointError) as error:
        load_weights(model, state)
    for part in ("1 missing (1._mean)", "1 unexpected (extra)", "1 mis-shaped (0.weight [4, 2, 3, 3]"):
        assert part in str(error.value)


def test_links_and_rotation(tmp_path):
    model, optimizer = _build()
    for i in (1, 2, 10):
        _save(tmp_path / f"iter_{i}", model, optimizer, i)
    checkpoint.link_checkpoint(tmp_path / "iter_1", tmp_path / "best_model")
    checkpoint.link_checkpoint(tmp_path / "iter_2", tmp_path / "best_model")
    checkpoint.remove_old(tmp_path, 1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best_model", "iter_10"]
    assert (
        whole_checkpoints.load_checkpoint(tmp_path / "best_model", model=model, optimizer=optimizer)["iteration"] == 2
    )


class _Attack:
    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


def test_hostile_files_run_nothing(tmp_path):
    marker = tmp_path / "was_here"
    attacks = [
        _Attack(os.system, f"touch {marker}"),
        _Attack(eval, f"open({str(marker)!r}, 'w')"),
        _Attack(open, "/etc/hostname"),
        {"w": _Attack(os.mkdir, str(marker))},
        _Attack(getattr, "text", "upper"),
    ]
    for i, attack in enumerate(attacks):
        path = tmp_path / f"{i}.pdparams"
        path.write_bytes(pickle.dumps(attack))
        with pytest.raises(CheckpointError, match=str(path)):
            read_params(path)
    assert not marker.exists()


@pytest.mark.parametrize("content", [b"", b"\x80", b"\x80\x04N.", b"\x80\x04\x8e" + b"\xff" * 8, b"plain text"])
def test_not_a_checkpoint(tmp_path, content):
    path = tmp_path / "x.pdparams"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="x.pdparams"):
        read_params(path)


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_reads_what_paddle_writes(tmp_path, protocol):
    state = {"w": np.arange(6.0).reshape(2, 3).T, "n": {"a": np.float32(2), "b": [1, "x", None]}}
    path = tmp_path / "x.pdparams"
    path.write_bytes(pickle.dumps(state, protocol=protocol))
    read = read_params(path)
    np.testing.assert_array_equal(read["w"], state["w"])
    assert read["n"]["a"] == 2 and read["n"]["b"] == [1, "x", None]


def test_safetensors(tmp_path):
    model, _ = _build()
    expected = _weights(model)
    write_safetensors(expected, tmp_path / "w.safetensors")
    other, _ = _build()
    load_weights(other, tmp_path / "w.safetensors")
    np.testing.assert_array_equal(_weights(other)["0.weight"], expected["0.weight"])
