# SPDX-License-Identifier: Apache-2.0
"""The .pth reader on files that PyTorch 2.13 wrote in both formats, and on damaged and hostile ones."""

import pickle
import tracemalloc
from pathlib import Path

from paddle_dnl.errors import CheckpointError
from paddle_dnl.weights.convert import read_torch_weights, torch_files
from paddle_dnl.weights.convert.torch_files import read_torch

import numpy as np
import pytest
import torch_writer

DATA = Path(__file__).parents[2] / "data" / "convert"


@pytest.mark.parametrize("name", ["zip.pth", "stream.pth"])
def test_both_formats_give_every_tensor(name):
    state = read_torch_weights(DATA / name)
    expected = {
        "conv.weight": (np.arange(24, dtype="float32").reshape(2, 3, 2, 2) / np.float32(7)),
        "conv.bias": np.array([1.5, -2.25], "float64"),
        "turned.weight": np.arange(6, dtype="float32").reshape(2, 3).T,
        "view.weight": np.arange(3, 7, dtype="float32"),  # shares its storage with base
        "base.weight": np.arange(10, dtype="float32"),
        "half.weight": np.array([0.5, -3.0], "float16"),
        "brain.weight": np.array([1.0, -0.15625], "float32"),  # stored as bfloat16
        "bn.num_batches_tracked": np.array(7),
        "param.weight": np.array([4.0, 5.0], "float32"),
        "mask": np.array([True, False]),
        "empty": np.zeros((0, 3), "float32"),
    }
    assert set(state) == {f"module.{key}" for key in expected}
    for key, value in expected.items():
        got = state[f"module.{key}"]
        assert got.dtype == value.dtype and got.shape == value.shape, key
        np.testing.assert_array_equal(got, value, err_msg=key)


def test_other_content_is_plain_or_dropped():
    content = read_torch(DATA / "zip.pth")
    assert content["meta"]["epoch"] == 3 and content["args"] is None
    assert read_torch_weights(DATA / "wrapped_model.pth")["w"].tolist() == [1.0, 2.0]


@pytest.mark.parametrize("name", ["hostile_zip.pth", "hostile_stream.pth", "whole_module.pth"])
def test_other_globals_are_refused_and_nothing_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="it asks for (posix.system|torch.nn)"):
        read_torch(DATA / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["zip.pth", "stream.pth"])
def test_every_truncation_is_an_error(name, tmp_path):
    whole = (DATA / name).read_bytes()
    for length in [0, 1, 4, 20, *range(100, len(whole), 97), len(whole) - 1]:
        path = tmp_path / "cut.pth"
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match="cut.pth"):
            read_torch(path)


def test_not_there_and_not_weights(tmp_path):
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_torch(tmp_path / "absent.pth")
    (tmp_path / "text.pth").write_text("hello there, this is text")
    with pytest.raises(CheckpointError, match="not a PyTorch file"):
        read_torch(tmp_path / "text.pth")
    torch_writer.save({}, tmp_path / "empty.pth")
    with pytest.raises(CheckpointError, match="no mapping of names to tensors"):
        read_torch_weights(tmp_path / "empty.pth")


@pytest.mark.parametrize(
    "offset, shape, strides",
    [(0, (3,), (1,)), (1, (2,), (1,)), (0, (1 << 20, 1 << 10), (0, 0)), (0, (2,), (-1,))],
)
def test_a_tensor_that_reaches_beyond_its_data_is_refused(offset, shape, strides):
    storage = torch_files._Storage("<f4", 2, bytes(8))
    with pytest.raises(pickle.UnpicklingError):
        torch_files._rebuild_tensor(storage, offset, shape, strides).array()


def test_only_what_a_tensor_shows_of_a_bfloat16_storage_becomes_float32():
    """Thousands of tensors may share one storage; each would widen the whole of it."""
    storage = torch_files._Storage("bfloat16", 1 << 22, bytes(1 << 23))
    tensor = torch_files._rebuild_tensor(storage, 5, (3,), (2,))
    tracemalloc.start()
    assert tensor.array().dtype == "float32"
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


def test_a_shape_longer_or_larger_than_any_is_refused_before_it_is_used():
    storage = torch_files._Storage("<f4", 2, bytes(8))
    for offset, shape, strides in [
        (0, (1,) * 65, (1,) * 65),
        (0, (1 << 49,), (1,)),
        (0, (1,), (1 << 49,)),
        (1 << 49, (0,), (1,)),
        (False, (1,), (1,)),
        (0, (True,), (1,)),
        (0, (1, 1), (1,)),
    ]:
        with pytest.raises(pickle.UnpicklingError):
            torch_files._rebuild_tensor(storage, offset, shape, strides)


def test_the_writer_of_the_tests_is_read_back(tmp_path):
    state = {"a.weight": np.random.RandomState(0).randn(2, 3).astype("float32"), "n": np.array(4)}
    torch_writer.save(state, tmp_path / "x.pth", wrapper=None, prefix="module.")
    got = read_torch_weights(tmp_path / "x.pth")
    np.testing.assert_array_equal(got["module.a.weight"], state["a.weight"])
    assert got["module.n"] == 4 and got["module.n"].shape == ()
