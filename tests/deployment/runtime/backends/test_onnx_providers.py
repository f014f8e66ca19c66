# SPDX-License-Identifier: Apache-2.0
"""Which of ONNX Runtime's providers are asked for, by name; no GPU is needed, and none was there."""

from types import SimpleNamespace

from paddle_dnl.cli import infer
from paddle_dnl.deployment.runtime import predictor, selection
from paddle_dnl.deployment.runtime.backends.onnx_backend import OnnxBackend, onnx_providers
from paddle_dnl.deployment.runtime.deploy_yaml import read_deploy_config
from paddle_dnl.deployment.runtime.options import BackendOptions
from paddle_dnl.errors import ExportError, UsageError

import onnxruntime
import pytest

BUILT = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_the_best_provider_comes_first(cache, monkeypatch):
    assert onnx_providers(BackendOptions(), BUILT) == ["CPUExecutionProvider"]
    cuda = ("CUDAExecutionProvider", {"device_id": 0})
    assert onnx_providers(BackendOptions(device="gpu"), BUILT) == [cuda, "CPUExecutionProvider"]
    monkeypatch.setenv("FLAGS_selected_gpus", "3")
    for precision in ("fp32", "fp16"):
        (name, settings), (second, more), last = onnx_providers(
            BackendOptions(device="gpu", use_trt=True, precision=precision), BUILT
        )
        assert (name, second, last) == tuple(BUILT) and settings["device_id"] == more["device_id"] == 3
        assert settings["trt_fp16_enable"] == (precision == "fp16")
        assert settings["trt_engine_cache_path"] == str(cache / "paddle-dnl/tensorrt")


@pytest.mark.parametrize("options, built, message", [
    ({"device": "gpu"}, ["CPUExecutionProvider"], "no CUDAExecutionProvider .it has CPUExecutionProvider.; install"),
    ({"device": "gpu", "use_trt": True}, BUILT[1:], "has no TensorrtExecutionProvider"),
    ({"device": "npu"}, BUILT, "has no provider for npu"),
])  # fmt: skip
def test_what_this_build_has_not(options, built, message):
    with pytest.raises(UsageError, match=message):
        onnx_providers(BackendOptions(**options), built)


def test_a_session_that_fell_back_to_the_cpu_is_refused(folder, monkeypatch):
    """ONNX Runtime only prints a warning when it cannot load CUDA's libraries."""
    asked = []

    class Session:
        def __init__(self, path, settings, providers):
            asked.append(providers)

        def get_providers(self):
            return ["CPUExecutionProvider"]

        def get_inputs(self):
            return [SimpleNamespace(name="x")]

        get_outputs = get_inputs

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: BUILT)
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    files = read_deploy_config(folder)
    with pytest.raises(UsageError, match="CUDAExecutionProvider cannot be started here"):
        OnnxBackend(files, BackendOptions(device="gpu"))
    assert [provider[0] for provider in asked[0][:1]] == ["CUDAExecutionProvider"]
    OnnxBackend(files, BackendOptions())
    with pytest.raises(ExportError, match="has no float16 model; export it with --format onnx --fp16"):
        OnnxBackend(files, BackendOptions(precision="fp16"))


def test_auto_on_a_gpu(folder, monkeypatch):
    files = read_deploy_config(folder)

    def labels(**options):
        return list(selection.candidates(files, BackendOptions(device="gpu", **options)))

    assert labels() == ["paddle"], "this ONNX Runtime is built for CPUs"
    for name in ("onnxruntime", "openvino"):
        found = selection.candidates(files, BackendOptions(device="gpu", precision="fastest"), name)
        assert found == {name: (name, BackendOptions(device="gpu"))}, "not another backend than the one that was named"
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: BUILT)
    assert labels() == ["paddle", "onnxruntime"]
    files.onnx_fp16 = "model_fp16.onnx"
    assert labels(precision="fp16") == ["onnxruntime fp16"]
    assert labels(precision="fastest") == ["paddle", "onnxruntime"]
    files.verified["precisions"] = {"onnxruntime fp16": {"agreement": 0.9999}}
    assert labels(precision="fastest") == ["paddle", "onnxruntime", "onnxruntime fp16"]
    on_cpu = selection.candidates(files, BackendOptions(precision="fastest"))
    assert "onnxruntime fp16" not in on_cpu and "onnxruntime" in on_cpu


def test_flags_of_infer_reach_the_backend(folder, tmp_path, monkeypatch):
    """`--streams` was once read and dropped."""
    seen = []

    def make(name, files, options):
        seen.append((name, options.streams, options.device, options.precision, options.use_trt))
        raise UsageError("far enough")

    monkeypatch.setattr(predictor, "make_backend", make)
    (tmp_path / "a.png").write_bytes(b"")
    words = ["--config", str(folder), "--image_path", str(tmp_path / "a.png"), "--save_dir", str(tmp_path / "out")]
    for flags in (
        ["--backend", "openvino", "--streams", "2"],
        ["--backend", "onnxruntime", "--device", "gpu", "--precision", "fp16", "--use_trt", "True"],
    ):
        with pytest.raises(UsageError, match="far enough"):
            infer.main([*words, *flags])
    assert seen == [("openvino", 2, "cpu", "fp32", False), ("onnxruntime", None, "gpu", "fp16", True)]
