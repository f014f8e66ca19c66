# SPDX-License-Identifier: Apache-2.0
"""Winograd's algorithm in OpenVINO's graphs: by value, what is replaced and what is left, and through the backend."""

from paddle_dnl.deployment.runtime import selection
from paddle_dnl.deployment.runtime.backends import openvino_backend, winograd_graph
from paddle_dnl.deployment.runtime.deploy_yaml import read_deploy_config, write_deploy_config
from paddle_dnl.deployment.runtime.predictor import Predictor

import numpy as np
import openvino
import openvino.opset8 as ops
import pytest
from tiny_onnx import wide_net

# batch (-1 is free), channels, filters, height, width, dilations, pads above, left, below, right
CASES = [
    (1, 5, 7, 16, 24, (1, 1), (1, 1, 1, 1)),
    (-1, 8, 3, 13, 17, (1, 1), (1, 1, 1, 1)),
    (2, 6, 9, 23, 9, (2, 2), (2, 2, 2, 2)),
    (-1, 4, 4, 19, 30, (4, 4), (4, 4, 4, 4)),
    (1, 3, 5, 33, 29, (12, 12), (12, 12, 12, 12)),
    (1, 3, 2, 12, 11, (1, 2), (0, 3, 2, 0)),
    (1, 4, 3, 7, 50, (3, 1), (0, 0, 0, 0)),
    (-1, 2, 2, 1, 1, (1, 1), (1, 1, 1, 1)),
]


def _direct(x, weights, dilation=(1, 1), pads=(1, 1, 1, 1)) -> np.ndarray:
    """The convolution in float64, by its definition."""
    (dy, dx), (top, left, below, right) = dilation, pads
    x = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (top, below), (left, right)))
    height, width = x.shape[2] - 2 * dy, x.shape[3] - 2 * dx
    out = 0
    for i in range(weights.shape[2]):
        for j in range(weights.shape[3]):
            part = x[:, :, i * dy : i * dy + height, j * dx : j * dx + width]
            out = out + weights[:, :, i, j].astype(np.float64) @ part.reshape(*x.shape[:2], -1)
    return out.reshape(len(x), -1, height, width)


def _graph(shape, weights, dilation=(1, 1), pads=(1, 1, 1, 1), strides=(1, 1), dtype=np.float32, after=lambda y: y):
    x = ops.parameter(openvino.PartialShape(shape), dtype, "x")
    begin, end = pads[:2], pads[2:]
    y = ops.convolution(
        x, weights if hasattr(weights, "output") else ops.constant(weights), strides, begin, end, dilation
    )
    return openvino.Model([after(y)], [x])


def _kinds(model) -> list[str]:
    return [node.get_type_name() for node in model.get_ordered_ops()]


def _run(model, x) -> np.ndarray:
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return compiled([x])[0]


@pytest.fixture
def everywhere(monkeypatch):
    """Also convolutions too small to profit."""
    monkeypatch.setattr(winograd_graph, "is_faster", lambda *about: True)


@pytest.mark.parametrize("batch, channels, filters, height, width, dilation, pads", CASES)
def test_equals_the_definition(everywhere, batch, channels, filters, height, width, dilation, pads):
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(filters, channels, 3, 3)).astype(np.float32)
    model = _graph([batch, channels, height, width], weights, dilation, pads)
    before = model.output(0).get_partial_shape()
    assert winograd_graph.replace_convolutions(model) == 1
    assert "Convolution" not in _kinds(model) and model.output(0).get_partial_shape() == before
    for count in (1, 3) if batch == -1 else (batch,):
        x = rng.normal(size=(count, channels, height, width)).astype(np.float32)
        wanted = _direct(x, weights, dilation, pads)
        found = _run(model, x)
        assert found.shape == wanted.shape
        assert np.abs(found - wanted).max() < 4e-6 * np.abs(wanted).max()


def test_rounding_of_many_channels(everywhere):
    """Sums over 2048 channels of images after a ReLU: the error relative to the largest output stays that of float32."""
    rng = np.random.default_rng(0)
    weights = rng.normal(0, 0.01, (8, 2048, 3, 3)).astype(np.float32)
    x = np.maximum(rng.normal(size=(1, 2048, 16, 16)), 0).astype(np.float32)
    model = _graph([1, 2048, 16, 16], weights)
    assert winograd_graph.replace_convolutions(model) == 1
    wanted = _direct(x, weights)
    assert np.abs(_run(model, x) - wanted).max() < 3e-5 * np.abs(wanted).max()


def test_what_stays(everywhere):
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(4, 4, 3, 3)).astype(np.float32)
    left = [
        _graph([1, 4, 16, 16], weights, strides=(2, 2)),
        _graph([1, 4, -1, 16], weights),
        _graph([1, 4, 16, -1], weights),
        _graph([1, 4, 16, 16], weights[:, :, :1, :1], pads=(0, 0, 0, 0)),
        _graph([1, 4, 16, 16], weights.astype(np.float16), dtype=np.float16),
        _graph([1, 4, 16, 16], ops.multiply(ops.constant(weights), ops.constant(weights))),
    ]
    for model in left:
        assert winograd_graph.replace_convolutions(model) == 0 and "Convolution" in _kinds(model)
    grouped = ops.parameter([1, 8, 16, 16], np.float32, "x")
    node = ops.group_convolution(grouped, ops.constant(weights.reshape(2, 2, 4, 3, 3)), [1, 1], [1, 1], [1, 1], [1, 1])
    model = openvino.Model([node], [grouped])
    assert winograd_graph.replace_convolutions(model) == 0 and "GroupConvolution" in _kinds(model)


@pytest.fixture
def replaced(monkeypatch) -> list[int]:
    """How many convolutions of each model that a backend loads are replaced."""
    counts, real = [], winograd_graph.replace_convolutions
    monkeypatch.setattr(winograd_graph, "replace_convolutions", lambda model: counts.append(real(model)) or counts[-1])
    return counts


def _wanted(x: np.ndarray, weights: dict[str, np.ndarray]) -> np.ndarray:
    """The scores of `wide_net` in float64."""

    def column(name: str) -> np.ndarray:
        return weights[name].astype(np.float64)[:, None, None]

    y = np.maximum(_direct(x, weights["w0"], (0, 0), (0, 0, 0, 0)), 0)
    y = np.maximum(_direct(y, weights["w1"]) + column("b1"), 0)
    y = _direct(y, weights["w2"], (2, 2), (2, 2, 2, 2))
    y = (y - column("mean")) / np.sqrt(column("variance") + 1e-5) * column("scale") + column("shift")
    return _direct(np.maximum(y, 0), weights["w3"], (0, 0), (0, 0, 0, 0))


def test_through_the_predictor_and_its_cache(folder, tmp_path, monkeypatch, replaced):
    """The compiled model's file is no larger than the weights of the direct form; the second start finds it."""
    weights = wide_net(folder)
    cache = tmp_path / "cache/paddle-dnl/openvino"
    x = np.random.default_rng(1).normal(size=(1, 3, 64, 72)).astype(np.float32)
    wanted = _wanted(x, weights)
    for start in (1, 2):
        found = Predictor(folder, backend="openvino", cpu_threads=2).run(x)
        assert np.abs(found - wanted).max() < 1e-5 * np.abs(wanted).max()
        assert replaced == [2] * start
        (compiled,) = cache.iterdir()
        assert compiled.stat().st_size < 1.5 * (folder / "model.onnx").stat().st_size
    monkeypatch.setenv("PADDLE_DNL_WINOGRAD", "0")
    direct = Predictor(folder, backend="openvino", cpu_threads=2).run(x)
    assert len(replaced) == 2 and np.abs(direct - wanted).max() < 1e-5 * np.abs(wanted).max()
    assert len(list(cache.iterdir())) == 2 and (direct != found).any()


def test_a_free_batch_in_streams(folder, replaced):
    weights = wide_net(folder, (-1, 3, 64, 72))
    predictor = Predictor(folder, backend="openvino", cpu_threads=2, streams=2)
    x = np.random.default_rng(1).normal(size=(5, 3, 64, 72)).astype(np.float32)
    wanted = _wanted(x, weights)
    assert replaced == [2] and np.abs(predictor.run(x) - wanted).max() < 1e-5 * np.abs(wanted).max()
    assert predictor.run(x[:2]).shape == (2, 4, 64, 72)


def test_a_free_size_is_left_alone(folder, replaced):
    wide_net(folder, (1, 3, -1, -1))
    Predictor(folder, backend="openvino", cpu_threads=2).run(np.zeros((1, 3, 16, 24), np.float32))
    assert replaced == [0]


@pytest.mark.parametrize("precision", ["int8", "fp16", "bf16"])
def test_other_precisions_load_the_file_as_it_is(folder, monkeypatch, replaced, precision):
    wide_net(folder)
    files = read_deploy_config(folder)
    files.onnx_int8 = files.onnx_fp16 = files.onnx
    write_deploy_config(files)
    loaded = []

    class Core:
        """OpenVINO that stops where a model is compiled."""

        available_devices = ("CPU",)

        def get_property(self, device, name):
            return ("BF16", "FP16")

        def compile_model(self, model, device, settings):
            loaded.append(model)
            raise RuntimeError("far enough")

    monkeypatch.setattr(openvino_backend, "_core", Core)
    with pytest.raises(Exception, match="far enough"):
        Predictor(folder, backend="openvino", precision=precision)
    assert loaded == [str(folder / "model.onnx")] and replaced == []


def test_a_remembered_time_is_of_the_same_algorithm(folder, monkeypatch):
    """`auto` measures again when Winograd's algorithm is switched off."""
    asked = []
    monkeypatch.setattr(selection, "mkldnn_obstacle", lambda files: "not in this test")
    monkeypatch.setattr(selection, "load_average", lambda: 0.0)
    monkeypatch.setattr(selection, "_time", lambda backend, batch: asked.append(backend.name) or 0.5 + len(asked))
    for value, measured in (("1", 3), ("1", 3), ("0", 6), ("0", 6)):
        monkeypatch.setenv("PADDLE_DNL_WINOGRAD", value)
        Predictor(folder, backend="auto", cpu_threads=1)
        assert len(asked) == measured
