# SPDX-License-Identifier: Apache-2.0
"""OpenVINO as a backend: classes by value, precisions, streams, what is chosen and what is refused."""

import sys

from paddle_dnl.cli import infer
from paddle_dnl.deployment.runtime import backend_process, selection
from paddle_dnl.deployment.runtime.backends import openvino_backend
from paddle_dnl.deployment.runtime.deploy_yaml import read_deploy_config
from paddle_dnl.deployment.runtime.options import BackendOptions
from paddle_dnl.deployment.runtime.predictor import Predictor
from paddle_dnl.errors import ExportError, UsageError

import cv2
import numpy as np
import pytest
from tiny_export import NORMALIZE, ColorNet, blocks, export_model, logits_of
from tiny_onnx import color_net


def _scores(folder, monkeypatch, **options):
    """Logits `[4, 32, 64]` of a picture, and what they should be."""
    color_net(folder, output_op="none")
    predictor = Predictor(folder, backend="openvino", cpu_threads=2, **options)
    image, _ = blocks(4, 8, 8)
    tensor, _ = predictor.preprocess(image)
    return predictor.run(tensor[None])[0], logits_of(image)


def test_float32_by_value_and_the_callers_arithmetic(folder, monkeypatch):
    found, wanted = _scores(folder, monkeypatch)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    tiny = np.array([1e-40], np.float32)
    assert (tiny * np.float32(0.5) > 0).all(), "denormal numbers are switched off in the backend's thread only"
    assert list((folder.parent / "cache/paddle-dnl/openvino").iterdir()), "the compiled model is cached"


@pytest.mark.parametrize("order", [("fp32", "bf16"), ("bf16", "fp32")])
def test_bfloat16_where_the_processor_has_it(folder, monkeypatch, order):
    """Errors tell which precision ran, also when the cache holds the other one."""
    if not openvino_backend.has_bf16():
        with pytest.raises(UsageError, match="has no bf16 .a CPU needs AVX512_BF16 or AMX"):
            _scores(folder, monkeypatch, precision="bf16")
        return
    for precision in order:
        found, wanted = _scores(folder, monkeypatch, precision=precision)
        error = np.abs(found - wanted).max() / np.abs(wanted).max()
        assert error < 1e-5 if precision == "fp32" else 1e-4 < error < 2e-2


def test_streams_run_parts_of_a_batch_in_order(folder):
    predictor = Predictor(folder, backend="openvino", cpu_threads=2, streams=2)
    pictures = [blocks(4, 8, 8, seed) for seed in range(5)]
    labels = predictor.predict([image for image, _ in pictures], batch_size=5)
    for found, (_, label) in zip(labels, pictures, strict=True):
        np.testing.assert_array_equal(found, label)
    image, label = blocks(12, 20, 8, 9)  # in tiles
    np.testing.assert_array_equal(predictor.predict([image])[0], label)
    with pytest.raises(UsageError, match="streams 3: must be from 1 to the number of threads, 2"):
        Predictor(folder, backend="openvino", cpu_threads=2, streams=3)
    with pytest.raises(UsageError, match="only the backend openvino has streams"):
        Predictor(folder, backend="onnxruntime", streams=2)


def test_streams_with_a_fixed_batch_are_filled_up(tmp_path, monkeypatch):
    """Three pictures are more than one batch of two, less than two streams take, and no multiple."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shape = [2, 3, 32, 64]
    export_model(ColorNet(), tmp_path / "out", input_shape=shape, transforms=[dict(NORMALIZE)])
    color_net(tmp_path / "out", shape)
    predictor = Predictor(tmp_path / "out", backend="openvino", cpu_threads=2, streams=2)
    pictures = [blocks(4, 8, 8, seed) for seed in range(7)]
    for count in (1, 3, 4, 7):
        labels = predictor.predict([image for image, _ in pictures[:count]], batch_size=count)
        for found, (_, label) in zip(labels, pictures[:count], strict=True):
            np.testing.assert_array_equal(found, label)


def test_in_a_process_of_its_own_and_through_infer(folder, tmp_path):
    image, label = blocks(4, 8, 8, 3)
    backend = backend_process.BackendProcess(folder, "openvino", cpu_threads=1)
    predictor = Predictor(folder, backend=backend)
    np.testing.assert_array_equal(predictor.predict([image])[0], label)
    predictor.close()
    cv2.imwrite(str(tmp_path / "photo.png"), image)
    flags = ["--config", str(folder), "--image_path", str(tmp_path / "photo.png"), "--backend", "openvino"]
    assert infer.main([*flags, "--save_dir", str(tmp_path / "out"), "--cpu_threads", "1"]) == 0
    from PIL import Image

    np.testing.assert_array_equal(np.array(Image.open(tmp_path / "out/photo.png")), label)


def test_what_cannot_be_used(folder, exported, monkeypatch):
    with pytest.raises(ExportError, match="model.onnx: missing; the backend openvino needs it"):
        Predictor(exported, backend="openvino")
    with pytest.raises(UsageError, match="no device gpu; OpenVINO found cpu"):
        Predictor(folder, backend="openvino", device="gpu")
    with pytest.raises(UsageError, match="precision .int4.: must be one of fp32, fp16, bf16, int8, fastest"):
        Predictor(folder, backend="openvino", precision="int4")
    with pytest.raises(ExportError, match="has no int8 model"):
        Predictor(folder, backend="openvino", precision="int8")
    with pytest.raises(UsageError, match="bf16 on a CPU needs the backend openvino"):
        Predictor(folder, backend="paddle", precision="bf16")
    monkeypatch.setattr(
        openvino_backend, "require_known_operators", lambda path: (_ for _ in ()).throw(ExportError("strange operator"))
    )
    with pytest.raises(ExportError, match="strange operator"):
        Predictor(folder, backend="openvino")
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(UsageError, match="pip install openvino"):
        Predictor(folder, backend="openvino")


def _candidates(folder, precision, precisions=None):
    files = read_deploy_config(folder)
    files.verified |= {"precisions": precisions or {}}
    return list(selection.candidates(files, BackendOptions(precision=precision)))


def test_lower_precisions_only_when_asked_for_or_verified(folder, monkeypatch):
    monkeypatch.setattr(selection, "mkldnn_obstacle", lambda files: "not in this test")
    monkeypatch.setattr(selection, "has_bf16", lambda: True)
    plain = ["paddle", "onnxruntime", "openvino"]
    good, bad = {"openvino bf16": {"agreement": 0.9951}}, {"openvino bf16": {"agreement": 0.9949}}
    assert _candidates(folder, "fp32", good) == plain
    assert _candidates(folder, "fastest") == plain
    assert _candidates(folder, "fastest", bad) == plain
    assert _candidates(folder, "fastest", good) == [*plain, "openvino bf16"]
    assert _candidates(folder, "bf16") == ["openvino bf16"]
    assert _candidates(folder, "int8") == ["onnxruntime int8", "openvino int8"]
    monkeypatch.setattr(selection, "has_bf16", lambda: False)
    assert _candidates(folder, "fastest", good) == plain


def test_a_time_under_load_is_measured_again_when_the_load_is_gone(folder, monkeypatch):
    asked, load = [], [50.0]
    monkeypatch.setattr(selection, "mkldnn_obstacle", lambda files: "not in this test")
    monkeypatch.setattr(selection, "_time", lambda backend, batch: asked.append(backend.name) or 0.5 + len(asked))
    monkeypatch.setattr(selection, "load_average", lambda: load[0])
    for now, measured in ((50.0, 3), (30.0, 3), (0.1, 6), (50.0, 6), (0.0, 6)):
        load[0] = now
        Predictor(folder, backend="auto", cpu_threads=1)
        assert len(asked) == measured, now
