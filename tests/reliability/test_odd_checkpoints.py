# SPDX-License-Identifier: Apache-2.0
"""Checkpoints whose checksums fit and whose values no training wrote: one line with file and key before the first step.

The files are made by whoever can write a fitting checksum too, or by another version of this project.
"""

import json
import pickle
import shutil

from paddle_dnl.errors import CheckpointError
from paddle_dnl.files.reading import file_digest
from paddle_dnl.weights.loading import NAME_TABLE, load_weights, read_params
from paddle_dnl.weights.manifest import write_manifest
from paddle_dnl.weights.safe_pickle import read_pickle

import numpy as np
import paddle
import pytest
import tiny_training

NAN, HUGE = float("nan"), 10**5000
DEEP = [[[[[[[[1]]]]]]]]
SLOT, WEIGHT = "conv2d_W.w_0_velocity_0", "conv.weight"  # W: the number of the layer in the process that wrote the file
SHAPE = (8, 3, 3, 3)
SCALER = {
    "scale": [1024.0], "incr_ratio": 2.0, "decr_ratio": 0.5, "incr_every_n_steps": 2000, "decr_every_n_nan_or_inf": 1,
    "incr_count": 0, "decr_count": 0, "use_dynamic_loss_scaling": True,
}  # fmt: skip

# (file, key within it, value, what the error names). A dotted key leads into a mapping.
ODD = [
    *[("model.pdstates", "iteration", value, "does not belong") for value in ("x", None, -5, NAN, [5], np.zeros(3))],
    *[("model.pdstates", "best_miou", value, "best_miou") for value in ("x", None, NAN, -7, HUGE, DEEP, np.zeros(3))],
    *[("model.pdstates", "best_ema_miou", value, "best_ema_miou") for value in ("x", {}, 10**30)],
    *[("model.pdstates", "best_iteration", value, "best_iteration") for value in ("x", NAN, -2, HUGE)],
    *[("model.pdstates", "evaluations_without_gain", value, "evaluations_without_gain") for value in ("x", -1, None)],
    *[("model.pdstates", "evaluation_due", value, "evaluation_due") for value in ("x", 1, np.zeros(3))],
    *[("model.pdstates", "scaler", value, "scaler") for value in ("x", 3, {"scale": "x"}, {3: 4})],
    *[("model.pdstates", "scaler", SCALER | odd, f"scaler.{key}") for key, odd in {
        "scale": {"scale": [NAN]}, "incr_ratio": {"incr_ratio": 0.5}, "incr_count": {"incr_count": HUGE},
        "use_dynamic_loss_scaling": {"use_dynamic_loss_scaling": None}}.items()],
    *[("model.pdstates", "layout", value, "layout") for value in (None, 3, "x", [1])],
    *[("model.pdstates", "layout.seed", value, "layout.seed") for value in ("x", None, -1, NAN)],
    ("model.pdstates", "layout.precision", DEEP, "layout.precision"),
    *[("model.pdopt", SLOT, value, "velocity_0 is") for value in (
        "x", None, 3.0, [1, 2], {"a": 1}, np.float32(1), np.zeros((2, 2), "float32"), np.zeros(SHAPE, "int64"),
        np.zeros(SHAPE, "complex64"), np.zeros(SHAPE, "float64"))],
    ("model.pdopt", SLOT, np.full(SHAPE, NAN, "float32"), "NaN or infinity"),
    *[("model.pdopt", "master_weights", value, "master_weights") for value in ("x", None, [1])],
    ("model.pdopt", "master_weights", {"conv2d_W.w_0": "x"}, r"conv2d_\d+.w_0 is 'x'"),
    ("model.pdopt", "master_weights", {"nobody": np.zeros(SHAPE, "float32")}, "belong to no parameter"),
    *[("model.pdopt", "LR_Scheduler", value, "LR_Scheduler") for value in ("x", None, {}, {3: 4})],
    *[("model.pdopt", "LR_Scheduler.last_epoch", value, "last_epoch") for value in ("x", -5, HUGE, [1])],
    *[("model.pdopt", "LR_Scheduler.last_lr", value, "last_lr") for value in ("x", NAN, -1.0, {"a": 1})],
    ("model.pdopt", "LR_Scheduler.inner", {"last_epoch": 1, "last_lr": NAN}, "LR_Scheduler.inner.last_lr"),
    *[("model.pdparams", NAME_TABLE, value, "table of names") for value in (
        "x", None, [1], {WEIGHT: 3}, {WEIGHT: {"a": 1}}, {3: "x"})],
    *[("model.pdparams", WEIGHT, value, WEIGHT) for value in ("x", None, DEEP, np.zeros(SHAPE, "complex64"))],
    ("model.pdparams", WEIGHT, np.full(SHAPE, 1e300), "NaN or infinity"),
]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("odd")
    tiny_training.train(folder, opts=["iters=5"], save_interval=5)
    return folder


def _named(value, number: str):
    """Keys with the number of the layer, which depends on what the process built before."""
    if not isinstance(value, dict):
        return value
    return {key.replace("conv2d_W", number) if isinstance(key, str) else key: item for key, item in value.items()}


def _changed(trained, folder, file, key, value):
    """A copy of the run in which one value is another, and all checksums fit."""
    shutil.copy(trained / "config.yml", folder)
    checkpoint = folder / "output/iter_5"
    shutil.copytree(trained / "output/iter_5", checkpoint)
    number = read_params(checkpoint / "model.pdparams")[NAME_TABLE][WEIGHT].partition(".")[0]
    content = read_pickle(checkpoint / file)
    place = content
    above, last = ([], key) if key.startswith("conv") else (key.split(".")[:-1], key.split(".")[-1])
    for name in above:
        place = place[name]
    place[last.replace("conv2d_W", number)] = _named(value, number)
    (checkpoint / file).write_bytes(pickle.dumps(content, protocol=4))
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    del manifest["checksum"]
    manifest["files"][file] = {
        "bytes": (checkpoint / file).stat().st_size,
        "sha256": file_digest(checkpoint / file),
    }
    write_manifest(checkpoint / "manifest.json", manifest)
    return checkpoint


def _resume(folder):
    return tiny_training.train(folder, opts=["iters=7"], resume_model="auto", seed=None)


@pytest.mark.parametrize(("file", "key", "value", "says"), ODD, ids=lambda value: str(type(value).__name__))
def test_odd_values_are_one_line_before_the_first_step(trained, tmp_path, file, key, value, says):
    checkpoint = _changed(trained, tmp_path, file, key, value)
    with pytest.raises(CheckpointError, match=says) as raised:
        _resume(tmp_path)
    text = str(raised.value)
    assert str(checkpoint / file) in text and "\n" not in text and len(text) < 600
    assert [path.name for path in (tmp_path / "output").glob("iter_*")] == ["iter_5"]


@pytest.mark.parametrize(("file", "key", "value"), [
    ("model.pdstates", "layout.seed", 2**64 - 1), ("model.pdstates", "scaler", SCALER), ("model.pdstates", "scaler", {}),
    ("model.pdopt", "LR_Scheduler.last_lr", 0), ("model.pdstates", "best_miou", np.float64(0.25)),
])  # fmt: skip
def test_values_at_the_edge_are_taken(trained, tmp_path, file, key, value):
    _changed(trained, tmp_path, file, key, value)
    assert _resume(tmp_path).iteration == 7


def test_weights_in_bfloat16_of_paddle_are_read_as_numbers(trained, tmp_path):
    """Paddle writes the bits of bfloat16 as uint16; as whole numbers they would be weights of 15,000."""
    before = read_params(trained / "output/iter_5/model.pdparams")[WEIGHT]
    bits = (before.view(np.uint32) >> 16).astype(np.uint16)
    checkpoint = _changed(trained, tmp_path, "model.pdparams", WEIGHT, bits)
    model = tiny_training.TinyNet(3)
    load_weights(model, checkpoint / "model.pdparams")
    np.testing.assert_allclose(model.conv.weight.numpy(), before, rtol=2**-7)
    assert model.conv.weight.dtype == paddle.float32
