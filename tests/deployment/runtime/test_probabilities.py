# SPDX-License-Identifier: Apache-2.0
"""Probabilities from Predictor, infer and the service are those of NumPy's float64 formula, also as uint8."""

import io

from paddle_dnl.cli import infer
from paddle_dnl.deployment.export.exporter import export_model
from paddle_dnl.deployment.runtime.deploy_yaml import read_deploy_config
from paddle_dnl.deployment.runtime.predictor import Predictor
from paddle_dnl.errors import UsageError
from paddle_dnl.serving.app import create_app
from paddle_dnl.serving.settings import Settings

import cv2
import numpy as np
import pytest
from fastapi.testclient import TestClient
from tiny_export import BIAS, CLASSES, NORMALIZE, WEIGHT, ColorNet, blocks, export_color_net

INPUT = (32, 64)
PICTURE, _ = blocks(5, 7, 8)  # 40x56: resized to the model's size and back


def _softmax(scores: np.ndarray) -> np.ndarray:
    scores = np.exp(scores - scores.max(0))
    return scores / scores.sum(0)


def _wanted(image: np.ndarray, output_op: str) -> np.ndarray:
    """`[4, H, W]`: the network on the resized picture; logits are taken back to its size before the softmax."""
    pixels = image[..., ::-1].astype(np.float64) / 127.5 - 1
    small = cv2.resize(pixels, INPUT[::-1], interpolation=cv2.INTER_LINEAR)
    scores = (small @ WEIGHT.T + BIAS) / np.sqrt(1 + 1e-5)
    if output_op == "softmax":
        scores = _softmax(scores.transpose(2, 0, 1)).transpose(1, 2, 0)
    back = cv2.resize(scores, image.shape[1::-1], interpolation=cv2.INTER_LINEAR).transpose(2, 0, 1)
    return back if output_op == "softmax" else _softmax(back)


@pytest.fixture(scope="module", params=["softmax", "none"])
def export(request, tmp_path_factory):
    """An exported folder whose logits are around 300, which has no exponential in float32; the probabilities of `PICTURE`."""
    folder, model = tmp_path_factory.mktemp("export"), ColorNet()
    model.conv.bias.set_value(model.conv.bias + 300)
    shape, options = [1, 3, *INPUT], {"transforms": [dict(NORMALIZE)], "class_info": CLASSES}
    export_model(model, folder, input_shape=shape, output_op=request.param, **options)
    wanted = _wanted(PICTURE, request.param)
    assert ((wanted > 0.05) & (wanted < 0.95)).mean() > 0.01, "the picture has pixels between classes"
    return folder, wanted


def test_predictor(export):
    folder, wanted = export
    predictor = Predictor(folder)
    found, again = predictor.predict_probabilities([PICTURE, PICTURE])
    assert found.dtype == np.float32 and found.shape == (4, 40, 56)
    np.testing.assert_allclose(found, wanted, atol=2e-4)  # logits of 300 in float32 are known to 3e-5
    np.testing.assert_array_equal(found, again)
    np.testing.assert_array_equal(predictor.predict([PICTURE])[0], found.argmax(0))


def test_infer_and_service_as_uint8(export, tmp_path):
    folder, wanted = export
    cv2.imwrite(str(tmp_path / "a.png"), PICTURE)
    (exact,) = Predictor(folder).predict_probabilities([PICTURE])
    given = ["--config", str(folder / "deploy.yaml"), "--image_path", str(tmp_path / "a.png"), "--device", "cpu"]
    assert infer.main([*given, "--save_dir", str(tmp_path / "out"), "--save_prob", "uint8"]) == 0
    app = create_app(Predictor(folder), Settings(model=str(folder), workers=1))
    with TestClient(app, base_url="http://127.0.0.1") as client:
        reply = client.post("/v1/probabilities?kind=uint8", content=(tmp_path / "a.png").read_bytes())
        assert reply.status_code == 200, reply.text
    for stored in (tmp_path / "out" / "probabilities" / "a.npz", io.BytesIO(reply.content)):
        found = np.load(stored)["probabilities"]
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, np.rint(exact * 255))
        assert np.abs(found / 255 - wanted).max() < 0.5 / 255 + 2e-4


def test_an_export_of_classes_has_none(tmp_path):
    predictor = Predictor(export_color_net(tmp_path))
    with pytest.raises(UsageError, match="gives classes, not probabilities; .* --output_op softmax"):
        predictor.predict_probabilities([PICTURE])
    with pytest.raises(UsageError, match="gives classes"):
        predictor.probabilities(np.zeros(INPUT, np.int64), [])


class _Backend:
    """Stands in for a backend: 600 classes, of which the last wins in the right half of each picture."""

    name, parallel = "of numbers", 1

    def run(self, batch: np.ndarray) -> np.ndarray:
        scores = np.zeros((len(batch), 600, *batch.shape[2:]), np.float32)
        scores[:, 3, :, :32], scores[:, 599, :, 32:] = 9, 9
        return scores


def test_more_classes_than_opencv_has_channels(tmp_path, monkeypatch):
    """128 are the limit of OpenCV 5, 512 of OpenCV 4; scores of 600 classes are resized all the same."""
    shape, options = [1, 3, *INPUT], {"transforms": [dict(NORMALIZE)]}
    export_model(ColorNet(), tmp_path, input_shape=shape, output_op="none", **options)
    assert read_deploy_config(tmp_path).output_op == "none"
    predictor = Predictor(tmp_path, backend=_Backend())
    (label,) = predictor.predict([PICTURE])
    assert label.shape == (40, 56) and label.dtype == np.uint16
    assert (label[:, :26] == 3).all() and (label[:, 30:] == 599).all()
    (found,) = predictor.predict_probabilities([PICTURE])
    np.testing.assert_allclose(found[[3, 599]][:, :, [0, -1]], np.eye(2)[:, None].repeat(40, 1), atol=0.08)
