# SPDX-License-Identifier: Apache-2.0
"""Grey pictures of 12 bits and pictures of five bands go through every program, with one answer everywhere."""

import io

import paddle_dnl
from paddle_dnl.cli import export, infer, predict, train, val
from paddle_dnl.cli.analysis import draw_maps
from paddle_dnl.cli.data import describe_data, preview_data
from paddle_dnl.serving.app import create_app
from paddle_dnl.serving.settings import Settings

import cv2
import numpy as np
import pytest
import tifffile
from fastapi.testclient import TestClient
from PIL import Image

SIZE = (48, 64)
CONFIG = """
batch_size: 4
iters: 4
train_dataset: &train
  type: Dataset
  dataset_root: {root}
  train_path: {root}/train.txt
  num_classes: 3
  img_channels: {channels}
  value_range: [0, 4095]
  class_names: [low, middle, high]
  mode: train
  transforms:
    - {{type: RandomPaddingCrop, crop_size: [72, 56]}}
    - {{type: RandomHorizontalFlip}}
    - {{type: Normalize, mean: {mean}, std: {mean}}}
val_dataset:
  <<: *train
  train_path: null
  val_path: {root}/train.txt
  mode: val
  transforms: [{{type: Normalize, mean: {mean}, std: {mean}}}]
optimizer: {{type: SGD, momentum: 0.9}}
lr_scheduler: {{type: PolynomialDecay, learning_rate: 0.05, power: 0.9}}
loss: {{types: [{{type: CrossEntropyLoss}}], coef: [1, 0.4]}}
model:
  type: DNLNet
  dialect: mmseg
  backbone: {{type: ResNet18, output_stride: 16, pretrained: null}}
"""


def _data(root, channels, endings):
    rng = np.random.default_rng(0)
    lines = []
    for i in range(6):
        label = np.kron(rng.integers(0, 3, (3, 4)), np.ones((16, 16), int)).astype(np.uint8)
        image = (label[..., None] * 1200 + rng.integers(0, 900, (*SIZE, channels))).astype(np.uint16)
        image = image[..., 0] if channels == 1 else image
        name = f"i{i}{endings[i % len(endings)]}"
        if name.endswith(".png"):
            cv2.imwrite(str(root / name), image)
        elif name.endswith(".npy"):
            np.save(root / name, image)
        else:
            tifffile.imwrite(root / name, image, photometric="minisblack", planarconfig="contig")
        cv2.imwrite(str(root / f"l{i}.png"), label)
        lines.append(f"{name} l{i}.png\n")
    (root / "train.txt").write_text("".join(lines))
    (root / "images").mkdir()
    for line in lines[:3]:
        name = line.split()[0]
        (root / "images" / name).write_bytes((root / name).read_bytes())


@pytest.mark.parametrize("channels, endings", [(1, (".png", ".tif")), (5, (".tif", ".npy"))], ids=["grey", "five"])
def test_every_program(tmp_path, channels, endings, capsys):
    root = tmp_path / "data"
    root.mkdir()
    _data(root, channels, endings)
    config = tmp_path / "c.yml"
    config.write_text(CONFIG.format(root=root, channels=channels, mean=[0.5] * channels))
    common, folder = ["--config", str(config)], str(root / "images")
    assert train.main([*common, "--save_dir", str(tmp_path / "run"), "--do_eval", "--save_interval", "4"]) == 0
    assert "its images hold 0 to 32" in capsys.readouterr().out
    weights = str(tmp_path / "run" / "iter_4" / "model.pdparams")
    given = [*common, "--model_path", weights]
    assert val.main([*given, "--save_dir", str(tmp_path / "val"), "--save_pred"]) == 0
    assert describe_data.main([str(config), "--save_dir", str(tmp_path / "describe")]) == 0
    assert preview_data.main([str(config), "--out", str(tmp_path / "preview.html"), "--samples", "1"]) == 0
    predicted = tmp_path / "predict"
    assert predict.main([*given, "--image_path", folder, "--save_dir", str(predicted), "--save_prob"]) == 0
    shown = tmp_path / "attention"
    assert draw_maps.main([*given, "--image_path", folder, "--save_dir", str(shown)]) == 0
    assert len(list(shown.glob("*/viewer.html"))) == 3
    place = tmp_path / "export"
    shape = ["--input_shape", "1", str(channels), *map(str, SIZE)]
    assert export.main([*given, "--save_dir", str(place), *shape, "--output_op", "softmax"]) == 0
    inferred = tmp_path / "infer"
    assert infer.main(["--config", str(place), "--image_path", folder, "--save_dir", str(inferred), "--save_prob"]) == 0

    predictor = paddle_dnl.Predictor(place)
    client = TestClient(create_app(predictor, Settings(model=str(place), workers=1)), base_url="http://127.0.0.1")
    with client:
        for i in range(3):
            name = f"i{i}"
            label = np.asarray(Image.open(predicted / "pseudo_color_prediction" / f"{name}.png"))
            (picture,) = (root / "images").glob(f"{name}.*")
            answers = [
                np.asarray(Image.open(tmp_path / "val" / "pred" / f"{name}.png")),
                np.asarray(Image.open(inferred / f"{name}.png")),
                predictor.predict([picture])[0],
                np.asarray(Image.open(io.BytesIO(client.post("/v1/label", content=picture.read_bytes()).content))),
            ]
            reply = client.post("/v1/probabilities", content=picture.read_bytes())
            assert reply.status_code == 200, reply.text
            probabilities = [
                np.load(predicted / "probabilities" / f"{name}.npz")["probabilities"],
                np.load(inferred / "probabilities" / f"{name}.npz")["probabilities"],
                np.load(io.BytesIO(reply.content))["probabilities"],
                predictor.predict_probabilities([picture])[0],
            ]
            for found in answers:
                assert found.shape == SIZE and (found == label).mean() > 0.999
            for found in probabilities:
                assert found.shape == (3, *SIZE)
                np.testing.assert_allclose(found, probabilities[0], atol=2e-3)
                np.testing.assert_allclose(found.astype(np.float64).sum(0), 1, atol=3e-3)
        assert client.post("/v1/overlay", content=picture.read_bytes()).status_code == 200
