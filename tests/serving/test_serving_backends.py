# SPDX-License-Identifier: Apache-2.0
"""The service with OpenVINO: 8 bits, and parallel streams that take as many pictures of a fixed batch as there are streams."""

from concurrent.futures import ThreadPoolExecutor

from paddle_dnl.cli.deploy import quantize
from paddle_dnl.serving.app import create_app
from paddle_dnl.serving.main import load
from paddle_dnl.serving.settings import Settings

import cv2
import numpy as np
import pytest
import serving_tools
from serving_tools import client_of, label_of, png
from tiny_export import blocks
from tiny_onnx import attention_net, color_net


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_openvino_in_the_service(tmp_path, monkeypatch, precision):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = serving_tools.export(tmp_path / "export")
    if precision == "int8":
        attention_net(folder)
        cv2.imwrite(str(tmp_path / "a.png"), blocks(4, 8, 8)[0])
        (tmp_path / "list.txt").write_text("a.png\n")
        quantize.main(["--config", str(folder), "--image_list", str(tmp_path / "list.txt")])
    else:
        color_net(folder)
    settings = Settings(model=folder, backend="openvino", precision=precision, streams=2, cpu_threads=2, workers=4)
    models = load(settings)
    (predictor,) = models.values()
    try:
        assert (predictor.backend, predictor.parallel) == ("openvino", 2)
        pictures = [blocks(4, 8, 8, seed) for seed in range(6)]
        with client_of(create_app(models, settings)) as client, ThreadPoolExecutor(6) as pool:
            assert client.get("/v1/model").json()["max_batch"] == 2
            replies = list(pool.map(lambda pair: client.post("/v1/label", content=png(pair[0])), pictures))
        for reply, (_, label) in zip(replies, pictures, strict=True):
            assert np.mean(label_of(reply) == label) > (0.999 if precision == "fp32" else 0.97)
    finally:
        predictor.close()
