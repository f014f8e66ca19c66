# SPDX-License-Identifier: Apache-2.0
"""The service of deploy/serving/Dockerfile.cpu: OpenVINO and ONNX Runtime where Paddle and PaddleSeg are not installed."""

import os

import numpy as np
import pytest
import serving_tools
from serving_tools import label_of, png
from tiny_export import blocks
from tiny_onnx import color_net

# Imported by every Python of the service when it starts, its backends' too: these names cannot be imported.
HIDDEN = "import sys\nsys.modules.update(dict.fromkeys(['paddle', 'paddleseg', 'scipy', 'sklearn', 'torch', 'onnx']))\n"


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime", "auto"])
def test_the_service_without_paddle(tmp_path, monkeypatch, backend):
    folder = serving_tools.export(tmp_path / "model")
    color_net(folder)
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "sitecustomize.py").write_text(HIDDEN)
    paths = [str(tmp_path / "hidden"), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    image, label = blocks(4, 8, 8)
    with serving_tools.Running(folder, "--backend", backend) as service:
        assert service.client.get("/v1/model").json()["backend"] in (backend, "openvino", "onnxruntime")
        np.testing.assert_array_equal(label_of(service.client.post("/v1/label", content=png(image))), label)
        assert service.client.get("/v2/models/model").json()["inputs"][0]["shape"] == [-1, 3, 32, 64]
        assert service.stop() == 0 and "Traceback" not in "".join(service.lines)


def test_without_paddle_its_backend_is_refused_by_name(tmp_path, monkeypatch):
    folder = serving_tools.export(tmp_path / "model")
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "sitecustomize.py").write_text(HIDDEN)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "hidden"))
    with pytest.raises(AssertionError, match="backend paddle: paddle is not installed; pip install paddlepaddle"):
        serving_tools.Running(folder, "--backend", "paddle")
