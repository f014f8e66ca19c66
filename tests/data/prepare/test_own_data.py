# SPDX-License-Identifier: Apache-2.0
"""From labelme files to a predictor with documented commands alone: the worked example of docs/own_data.md."""

import json
import re

import paddle_dnl
from paddle_dnl.cli import configs, export
from paddle_dnl.cli.data import describe_data, import_data, preview_data, split_data
from paddle_dnl.config import Config
from paddle_dnl.data.prepare.describe import suggest_crop
from paddle_dnl.data.statistics import class_weights
from paddle_dnl.errors import UsageError
from paddle_dnl.training.new_config import MODELS, choose_batch

import annotated
import numpy as np
import pytest


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("own")
    annotated.write_labelme(root / "labelme", 24)
    import_data.main([str(root / "labelme"), "--to", str(root / "data"), "--format", "labelme", "--num_workers", "1"])
    split_data.main([str(root / "data"), "--val", "0.25"])
    return root / "data"


def test_describe(data, tmp_path, capsys):
    assert describe_data.main([str(data), "--save_dir", str(tmp_path)]) == 0
    said, page = capsys.readouterr().out, (tmp_path / "describe.html").read_text()
    found = json.loads((tmp_path / "describe.json").read_text())
    assert "train: 18 images, all 64x48, 18 RGB" in said and "val: 6 images" in said
    labels = [np.array(data_label) for data_label in _labels(data, "train")]
    for i, row in enumerate(found["classes"]):
        assert row["pixels"]["train"] == sum(int((label == i).sum()) for label in labels)
        assert row["images"]["train"] == sum(bool((label == i).any()) for label in labels)
    assert [row["name"] for row in found["classes"]] == list(annotated.NAMES) and not found["duplicates"]
    assert page.count("<img") == 12 and not re.search(r"(src|href)\s*=\s*[\"'](?!data:)", page)
    lines = (data / "train.txt").read_text().splitlines()
    (data / "test.txt").write_text(lines[0] + "\n")
    try:
        describe_data.main([str(data)])
    finally:
        (data / "test.txt").unlink()
    assert "is in train too" in capsys.readouterr().out


def _labels(data, split):
    from PIL import Image

    return [Image.open(data / line.split("\t")[1]) for line in (data / f"{split}.txt").read_text().splitlines()]


def test_suggestions():
    assert suggest_crop({(640, 480): 3, (100, 90): 1}) == [640, 480]
    assert suggest_crop({(4000, 3000): 1}) == [768, 768] and suggest_crop({(70, 40): 1}) == [64, 64]

    class Counted:
        pixels, images_with, images, labelled = [900, 90, 10, 0], [10, 10, 5, 0], 10, 1000

    # Frequencies: 0.9, 0.09, 0.02; their median over each, within [0.1, 10].
    assert class_weights(Counted) == [0.1, 1.0, 4.5, 1.0]
    assert choose_batch(10**10, [512, 512], 6000, 100) == 4 and choose_batch(None, [512, 512], 6000, 3) == 3


@pytest.mark.parametrize("model", MODELS)
def test_every_offered_model_reads_back(data, tmp_path, model):
    assert configs.main(["new", "--data", str(data), "--model", model, "--out", str(tmp_path / "my.yml")]) == 0
    config = Config(str(tmp_path / "my.yml"))
    assert config.dic["val_dataset"]["class_names"] == list(annotated.NAMES) and config.model_cfg["num_classes"] == 3
    assert (tmp_path / "my.yml").read_text().count("num_classes") == 2, "once for each dataset, never for the model"
    with pytest.raises(UsageError, match="--model dnlnet: there is none"):
        configs.main(["new", "--data", str(data), "--model", "dnlnet", "--out", str(tmp_path / "b.yml")])


def test_worked_example(data, tmp_path):
    config = tmp_path / "my.yml"
    configs.main(["new", "--data", str(data), "--model", "dnlnet_resnet18", "--out", str(config)])
    assert (
        preview_data.main([str(config), "--out", str(tmp_path / "preview.html"), "--samples", "2", "--times", "2"]) == 0
    )
    assert (tmp_path / "preview.html").read_text().count("<img") == 8
    progress = paddle_dnl.train(
        str(config), save_dir=str(tmp_path / "run"), iters=10, batch_size=6, do_eval=True, save_interval=10, seed=0
    )
    weights = str(tmp_path / "run" / "best_model" / "model.pdparams")
    result = paddle_dnl.evaluate(str(config), weights)
    assert result.metrics.miou == pytest.approx(progress.best_miou) and result.metrics.miou > 0.05
    folder = str(tmp_path / "export")
    export.main(
        ["--config", str(config), "--model_path", weights, "--save_dir", folder, "--input_shape", "1", "3", "48", "64"]
    )
    predictor = paddle_dnl.Predictor(folder)
    assert predictor.classes.names == annotated.NAMES
    label = predictor.predict([annotated.picture(3)])[0]
    assert (label == annotated.truth(3)).mean() > 0.3
