# SPDX-License-Identifier: Apache-2.0
"""ONNX Runtime behind Predictor, and `auto`: what may be chosen, what is measured, what is remembered."""

import json
import shutil
import sys
import time

from paddle_dnl.deployment.runtime import selection
from paddle_dnl.deployment.runtime.deploy_yaml import read_deploy_config
from paddle_dnl.deployment.runtime.options import BackendOptions
from paddle_dnl.deployment.runtime.predictor import Predictor
from paddle_dnl.errors import ExportError, UsageError
from paddle_dnl.files import caches

import numpy as np
import pytest
import yaml
from tiny_export import blocks

SHAPE = [1, 3, 32, 64]


@pytest.fixture
def lines(monkeypatch):
    """What is logged by the choice."""
    found = []
    monkeypatch.setattr(selection.logger, "info", found.append)
    return found


@pytest.fixture
def speeds(monkeypatch):
    """Seconds per backend, in place of measured ones; backend -> how often it was measured."""
    taken = {"paddle": 0.04, "onnxruntime": 0.004, "openvino": 0.04}
    asked = []

    def measure(backend, batch):
        assert batch.shape == tuple(SHAPE) and batch.dtype == np.float32
        asked.append(backend.name)
        return taken[backend.name]

    monkeypatch.setattr(selection, "_time", measure)
    monkeypatch.setattr(selection, "load_average", lambda: 0.0)
    monkeypatch.setattr(selection, "mkldnn_obstacle", lambda files: "not in this test")
    return taken, asked


def _change(folder, **keys):
    path = folder / "deploy.yaml"
    content = yaml.safe_load(path.read_text())
    content["Deploy"] |= keys
    path.write_text(yaml.safe_dump(content))


def test_onnx_runtime_gives_the_classes(folder):
    predictor = Predictor(folder, backend="onnxruntime", cpu_threads=1)
    assert predictor.backend == "onnxruntime"
    assert Predictor(folder, engine="onnxruntime", cpu_threads=1).backend == "onnxruntime", "the argument's former name"
    for size in (8, 16):
        image, label = blocks(4, 8, size)
        np.testing.assert_array_equal(predictor.predict([image])[0], label)
    with pytest.raises(ExportError, match="ONNX Runtime failed"):
        predictor.run(np.zeros((1, 5, 32, 64), np.float32))


def test_onnx_files_that_cannot_be_used(folder, exported, monkeypatch):
    with pytest.raises(ExportError, match="model.onnx: missing"):
        Predictor(exported, backend="onnxruntime")
    (folder / "model.onnx").write_bytes(b"else")
    with pytest.raises(ExportError, match="model.onnx: damaged or replaced"):
        Predictor(folder, backend="onnxruntime")
    with pytest.raises(ExportError, match="model.onnx: damaged or replaced"):
        Predictor(folder, backend="auto")
    _change(folder, sha256={})
    with pytest.raises(ExportError, match="model.onnx: cannot be loaded"):
        Predictor(folder, backend="onnxruntime")
    with pytest.raises(ExportError, match="has no float16 model"):
        Predictor(folder, backend="onnxruntime", precision="fp16")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UsageError, match="pip install onnxruntime"):
        Predictor(folder, backend="onnxruntime")


def test_auto_takes_the_faster_one_and_says_so(folder, speeds, lines):
    taken, asked = speeds
    assert Predictor(folder, backend="auto").backend == "onnxruntime"
    assert asked == ["paddle", "onnxruntime", "openvino"]
    assert "onnxruntime; a batch [1, 3, 32, 64]" in "\n".join(lines)
    assert "onnxruntime 0.004 s, paddle 0.040 s, openvino 0.040 s (measured now)" in "\n".join(lines)
    # Remembered for these files on these threads, and only for them.
    taken["paddle"] = 0.001
    assert Predictor(folder, backend="auto").backend == "onnxruntime"
    assert len(asked) == 3 and "cached measurement of this machine" in lines[-2]
    assert Predictor(folder, backend="auto", cpu_threads=7).backend == "paddle"
    assert len(asked) == 6


def test_a_damaged_memory_is_measured_again(folder, speeds, tmp_path):
    memory = tmp_path / "cache" / "paddle-dnl" / "backends.json"
    Predictor(folder, backend="auto")
    content = json.loads(memory.read_text())
    names = ["paddle", "onnxruntime", "openvino"]
    assert [list(value["seconds"]) for value in content.values()] == [names]
    wrong = dict.fromkeys(names, -1.0)
    damages = ("{", "[]", json.dumps(dict.fromkeys(content, {"seconds": wrong, "load": 0.0})))
    for damage in (*damages, json.dumps(dict.fromkeys(content, wrong)), json.dumps(dict.fromkeys(content, [1]))):
        memory.write_text(damage)
        before = len(speeds[1])
        assert Predictor(folder, backend="auto").backend == "onnxruntime"
        assert len(speeds[1]) == before + 3
    shutil.rmtree(memory.parent)
    memory.parent.write_text("no folder can be made here")
    assert Predictor(folder, backend="auto").backend == "onnxruntime"


@pytest.mark.parametrize(
    "verified", [{}, {"onnxruntime": {"ok": False}}, {"onnxruntime": {"error": "x"}}], ids=["absent", "bad", "failed"]
)
def test_auto_leaves_out_what_was_not_verified(folder, speeds, lines, verified):
    _change(folder, verified=verified)
    assert Predictor(folder, backend="auto").backend == "paddle"
    text = "\n".join(lines)
    assert speeds[1] == [] and "paddle, the only verified candidate" in text
    assert "skipping onnxruntime: the export did not verify it" in text
    assert "skipping paddle with oneDNN: not in this test" in text


def test_a_user_without_a_home_has_a_temporary_cache(folder, speeds, monkeypatch, tmp_path):
    """As in a container that runs under a number that has no name."""
    monkeypatch.delenv("XDG_CACHE_HOME")

    def homeless(self):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(selection.Path, "expanduser", homeless)
    monkeypatch.setattr(caches.tempfile, "gettempdir", lambda: str(tmp_path))
    for _ in range(2):
        assert Predictor(folder, backend="auto").backend == "onnxruntime"
    assert len(speeds[1]) == 3 and list(tmp_path.glob("paddle_dnl_cache_*/paddle-dnl/backends.json"))


def test_auto_without_onnx_runtime_or_on_other_terms(folder, speeds, monkeypatch):
    assert Predictor(folder, backend="auto", enable_mkldnn=False).backend == "onnxruntime"
    files = read_deploy_config(folder)
    for settings in ({"device": "gpu"}, {"enable_mkldnn": True}):
        options = BackendOptions(**settings)
        assert list(selection.candidates(files, options)) == ["paddle"]
    int8 = selection.candidates(files, BackendOptions(precision="int8"))
    assert list(int8) == ["onnxruntime int8", "openvino int8"]
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert list(selection.candidates(files, BackendOptions())) == ["paddle", "openvino"]
    monkeypatch.setattr(selection, "openvino_version", lambda: None)
    assert list(selection.candidates(files, BackendOptions())) == ["paddle"]


def test_onednn_takes_part_where_it_was_verified(folder, monkeypatch):
    monkeypatch.setattr(selection, "mkldnn_obstacle", lambda files: None)
    found = selection.candidates(read_deploy_config(folder), BackendOptions())
    assert list(found) == ["paddle", "paddle with oneDNN", "onnxruntime", "openvino"]
    assert [options.enable_mkldnn for _, options in found.values()] == [False, True, False, False]


def test_the_clock():
    """The first run is not counted, and the faster of the next two is."""
    pauses = iter((0.2, 0.06, 0.02))

    class Backend:
        def run(self, batch):
            time.sleep(next(pauses))

    assert 0.019 < selection._time(Backend(), None) < 0.05


def test_real_measurement(folder, lines):
    backend = Predictor(folder, backend="auto").backend
    assert f"backend auto: {backend}" in "\n".join(lines).replace("paddle with oneDNN", "paddle")
    assert all(name in "\n".join(lines) for name in ("paddle ", "onnxruntime ", "measured now"))


@pytest.mark.parametrize("backend", ["paddle", "auto"])
def test_an_unknown_precision_is_named_with_the_known_ones(exported, backend):
    with pytest.raises(UsageError, match="precision 'int4': must be one of fp32, fp16, bf16, int8, fastest"):
        Predictor(exported, backend=backend, precision="int4")
