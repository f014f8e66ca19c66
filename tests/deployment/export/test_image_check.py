# SPDX-License-Identifier: Apache-2.0
"""Backends and precisions compared with the model on pictures: counts by NumPy, failures noted, the flag of export.py."""

from paddle_dnl.cli import export
from paddle_dnl.deployment.export import graphs, image_check
from paddle_dnl.deployment.export.exporter import export_model
from paddle_dnl.deployment.runtime.backends.openvino_backend import has_bf16
from paddle_dnl.deployment.runtime.deploy_yaml import read_deploy_config
from paddle_dnl.deployment.runtime.predictor import Predictor
from paddle_dnl.errors import DataError

import cv2
import numpy as np
import paddle
import pytest
from tiny_export import CLASSES, NORMALIZE, ColorNet, blocks
from tiny_onnx import color_net_file, tiny_net_file
from tiny_training import TinyNet, write_config

BACKENDS = {"paddle fp32", "onednn fp32", "onnxruntime fp32", "openvino fp32"} | (
    {"openvino bf16"} if has_bf16() else set()
)


@pytest.fixture
def pairs(tmp_path):
    """Three pictures of the model's size; a third of the pixels of the first two labels is wrong, the last has none."""
    found = []
    for seed in range(3):
        image, label = blocks(4, 8, 8, seed)
        label[:, ::3] = 3 - label[:, ::3]
        cv2.imwrite(str(tmp_path / f"{seed}.png"), image)
        cv2.imwrite(str(tmp_path / f"{seed}_label.png"), label)
        found.append((tmp_path / f"{seed}.png", tmp_path / f"{seed}_label.png" if seed < 2 else None))
    return found


def _miou(found, labels) -> float:
    found, labels = np.concatenate(found), np.concatenate(labels)
    return np.mean([((found == k) & (labels == k)).sum() / ((found == k) | (labels == k)).sum() for k in range(4)])


def _export(folder, pairs, monkeypatch):
    monkeypatch.setattr(graphs, "require_converter", lambda: None)
    monkeypatch.setattr(graphs, "convert", lambda files: color_net_file(files, 1))
    settings = {"input_shape": [1, 3, 32, 64], "transforms": [dict(NORMALIZE)], "class_info": CLASSES}
    export_model(
        ColorNet(), folder, with_onnx=True, image_check=image_check.ImageCheck(pairs) if pairs else None, **settings
    )
    return read_deploy_config(folder)


def test_every_backend_is_scored_and_recorded(tmp_path, pairs, monkeypatch):
    files = _export(tmp_path / "out", pairs, monkeypatch)
    wanted = _miou([blocks(4, 8, 8, seed)[1] for seed in range(2)], [cv2.imread(str(p), 0) for _, p in pairs[:2]])
    assert files.verified["images"] == {"images": 3, "miou": pytest.approx(wanted)}
    assert set(files.verified["precisions"]) == BACKENDS
    for label, record in files.verified["precisions"].items():
        assert record["error"] is None and record["images"] == 3, label
        assert record["agreement"] > (0.99 if "bf16" in label else 0.9999), label
        assert record["miou"] == pytest.approx(wanted, abs=0.01)


def test_agreement_counts_pixels(tmp_path, pairs, monkeypatch):
    """Against a predictor that says class 0 everywhere."""
    files = _export(tmp_path / "out", [], monkeypatch)
    plain = Predictor(files.folder, backend="onnxruntime")

    class Zero:
        def predict(self, images):
            return [np.zeros_like(plain.predict(images)[0])]

    score = image_check.ScoredImages(plain, pairs, files, 4).score(Zero())
    share = np.mean([blocks(4, 8, 8, seed)[1] == 0 for seed in range(3)])
    assert score.agreement == pytest.approx(share)
    labels = [cv2.imread(str(path), 0) for _, path in pairs[:2]]
    assert score.miou == pytest.approx(_miou([np.zeros_like(label) for label in labels], labels))


def test_a_backend_that_cannot_run_is_noted_and_a_wrong_label_ends_the_export(tmp_path, pairs, monkeypatch):
    trials = {"paddle fp32": ("paddle", {}), "onnxruntime int8": ("onnxruntime", {"precision": "int8"})}
    monkeypatch.setattr(image_check, "_trials", lambda found: trials)
    records = _export(tmp_path / "out", pairs[2:], monkeypatch).verified["precisions"]
    assert records["onnxruntime int8"]["agreement"] is None
    assert "has no int8 model" in records["onnxruntime int8"]["error"]
    assert records["paddle fp32"]["agreement"] == 1 and records["paddle fp32"]["miou"] is None
    (tmp_path / "small.png").write_bytes(cv2.imencode(".png", np.zeros((4, 4), np.uint8))[1].tobytes())
    with pytest.raises(DataError, match="small.png: is 4x4, its picture 64x32"):
        _export(tmp_path / "new", [(pairs[0][0], tmp_path / "small.png")], monkeypatch)
    assert not (tmp_path / "new").exists()


def test_the_flag_of_the_program(tmp_path, monkeypatch, capsys):
    config = write_config(tmp_path)
    model = TinyNet(3)
    paddle.save(model.state_dict(), str(tmp_path / "m.pdparams"))
    monkeypatch.setattr(graphs, "require_converter", lambda: None)
    monkeypatch.setattr(graphs, "convert", lambda files: tiny_net_file(files, model))
    words = ["--config", str(config), "--model_path", str(tmp_path / "m.pdparams"), "--save_dir", str(tmp_path / "out")]
    words += ["--input_shape", "1", "3", "24", "24", "--format", "onnx"]
    assert export.main([*words, "--verify_images", str(tmp_path / "data/val.txt")]) == 0
    verified = read_deploy_config(tmp_path / "out").verified
    assert verified["images"]["images"] == 3 and set(verified["precisions"]) == BACKENDS
    assert all(record["agreement"] > 0.98 for record in verified["precisions"].values())
    assert (
        "openvino fp32 on 3 images: 100.000 % of pixels have the reference's class, mIoU 0." in capsys.readouterr().out
    )
    with pytest.raises(DataError, match="no such list of images"):
        export.main([*words, "--verify_images", str(tmp_path / "none.txt")])
