# SPDX-License-Identifier: Apache-2.0
"""The files of an evaluation, against formulas of NumPy and the readers of others."""

import csv
import json
import zipfile

from paddle_dnl.cli import val
from paddle_dnl.data.scenes import mini_cityscapes
from paddle_dnl.errors import UsageError
from paddle_dnl.evaluation.boundary import BoundaryCounts, boundary
from paddle_dnl.evaluation.calibration import CalibrationCounts
from paddle_dnl.evaluation.class_table import class_rows, table_text
from paddle_dnl.evaluation.outputs import CITYSCAPES_LABEL_IDS, EvalOutputs, OutputOptions

import cv2
import numpy as np
import paddle
import pytest
import tiny_training
import yaml
from PIL import Image


def _boundary_by_distance(mask, distance):
    """Pixels whose square of that radius leaves the mask or the image."""
    found = np.zeros_like(mask)
    padded = np.pad(mask, distance)
    for y, x in zip(*np.nonzero(mask), strict=True):
        found[y, x] = not padded[y : y + 2 * distance + 1, x : x + 2 * distance + 1].all()
    return found


@pytest.mark.parametrize("distance", [1, 3])
def test_boundaries(distance):
    mask = (cv2.GaussianBlur(np.random.default_rng(0).normal(size=(40, 50)), (0, 0), 4) > 0).astype(np.uint8)
    np.testing.assert_array_equal(boundary(mask, distance), _boundary_by_distance(mask, distance))


def test_boundary_iou_leaves_ignored_pixels_out():
    label, pred = np.zeros((60, 80), np.uint8), np.zeros((60, 80), np.uint8)
    label[10:40, 10:40], pred[12:42, 10:40] = 1, 1
    label[50:] = 9
    counts = BoundaryCounts(3, 9)
    counts.add(pred, label)
    valid = label != 9
    for k in range(2):
        truth, found = (
            _boundary_by_distance(((m == k) & valid).astype(np.uint8), 2).astype(bool) for m in (label, pred)
        )
        assert counts.iou()[k] == (truth & found).sum() / (truth | found).sum()
    assert np.isnan(counts.iou()[2])


def test_expected_calibration_error():
    rng = np.random.default_rng(1)
    confidence = rng.uniform(0.3, 1, 5000)
    right = rng.uniform(size=5000) < confidence**2
    edges = np.linspace(0, 1, 16)
    wanted = 0.0
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        inside = (confidence >= low) & (confidence < high)
        if inside.any():
            wanted += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    counts = CalibrationCounts()
    counts.add(confidence[:2000], right[:2000])
    counts.add(confidence[2000:], right[2000:])
    assert abs(counts.error() - wanted) < 1e-9 and wanted > 0.05


def test_table_by_class_name():
    rows = class_rows(("sand", "blue water", "sky"), np.array([[50, 10, 0], [5, 35, 0], [0, 0, 0]]))
    assert rows[0]["iou"] == 50 / 65 and rows[0]["precision"] == 50 / 55 and rows[0]["recall"] == 50 / 60
    assert rows[1]["accuracy"] == 0.85 and rows[1]["share"] == 0.4 and rows[2]["iou"] is rows[2]["accuracy"] is None
    lines = table_text(rows).splitlines()
    assert lines[0].split()[0] == "class" and lines[2].startswith("blue water  ") and len(set(map(len, lines))) == 1


def test_val_writes_everything(tmp_path, capsys):
    path = tiny_training.write_config(tmp_path)
    content = yaml.safe_load(path.read_text())
    for section in ("train_dataset", "val_dataset"):
        content[section]["class_names"] = ["sand", "water", "sky"]
    path.write_text(yaml.safe_dump(content))
    tiny_training.train(tmp_path, ["iters=5"])
    label = cv2.imread(str(tmp_path / "data" / "label_1.png"), cv2.IMREAD_UNCHANGED)
    cv2.imwrite(str(tmp_path / "data" / "label_1.png"), np.full_like(label, 255))
    out = tmp_path / "scores"
    arguments = [
        "--config",
        str(path),
        "--model_path",
        str(tmp_path / "output/iter_5/model.pdparams"),
        "--save_dir",
        str(out),
    ]
    assert val.main([*arguments, "--save_pred", "--save_prob", "uint8", "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert "sand" in said and "Boundary IoU" in said
    scores = json.loads((out / "scores.json").read_text())
    confusion = np.zeros((3, 3), int)
    calibration = CalibrationCounts()
    for name in ("image_0", "image_1", "image_2"):
        pred = np.array(Image.open(out / "pred" / f"{name}.png"))
        prob = np.load(out / "prob" / f"{name}.npz")["probabilities"]
        truth = cv2.imread(str(tmp_path / "data" / f"{name.replace('image', 'label')}.png"), cv2.IMREAD_UNCHANGED)
        assert prob.shape == (3, *truth.shape) and prob.dtype == np.uint8
        assert (np.take_along_axis(prob, pred[None].astype(int), 0)[0] == prob.max(0)).all()
        valid = truth < 3
        np.add.at(confusion, (truth[valid], pred[valid]), 1)
        calibration.add(prob.max(0)[valid] / 255, (pred == truth)[valid])
    rows = list(csv.reader((out / "confusion.csv").open()))
    assert rows[0][1:] == ["sand", "water", "sky"] and np.array_equal(np.array(rows[1:])[:, 1:].astype(int), confusion)
    iou = np.diag(confusion) / (confusion.sum(0) + confusion.sum(1) - np.diag(confusion))
    assert abs(scores["miou"] - iou.mean()) < 1e-12
    assert [row["name"] for row in scores["classes"]] == ["sand", "water", "sky"]
    assert abs(scores["expected_calibration_error"] - calibration.error()) < 0.004
    images = list(csv.DictReader((out / "images.csv").open()))
    assert [bool(row["miou"]) for row in images] == [True, True, False] and images[2]["image"].endswith("image_1.png")
    assert float(images[0]["miou"]) <= float(images[1]["miou"])
    assert (out / "confusion.png").stat().st_size > 1000 and not (out / ".submission").exists()
    with pytest.raises(UsageError, match="--save_pred needs --save_dir"):
        val.main([*arguments[:-2], "--save_pred"])
    with pytest.raises(UsageError, match="needs Cityscapes' 19 classes"):
        val.main([*arguments, "--cityscapes_submission", "--device", "cpu"])


def test_cityscapes_submission_is_read_by_its_own_scripts(tmp_path):
    from paddle_dnl.data.datasets import Cityscapes
    from paddle_dnl.data.prepare import convert_cityscapes

    from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as official
    from cityscapesscripts.helpers.labels import trainId2label

    assert tuple(trainId2label[i].id for i in range(19)) == CITYSCAPES_LABEL_IDS
    mini_cityscapes.generate(tmp_path / "data", train=1, val=2, size=(128, 64))
    convert_cityscapes.convert_tree(tmp_path / "data", 1)
    dataset = Cityscapes([], str(tmp_path / "data"), "val")
    outputs = EvalOutputs(dataset, OutputOptions(tmp_path / "out", cityscapes_submission=True))
    result = None
    from paddle_dnl.evaluation.evaluator import EvalResult
    from paddle_dnl.evaluation.metrics import Metrics, confusion_matrix

    confusion = np.zeros((19, 19), np.int64)
    for index in range(len(dataset)):
        label = dataset[index]["label"][0]
        pred = np.where(label == 255, 0, label)
        scores = paddle.to_tensor(np.eye(19, dtype=np.float32)[pred].transpose(2, 0, 1) * 20)
        outputs.observe(index, scores, False, pred, label)
        confusion += confusion_matrix(pred, label, 19)
    result = EvalResult(Metrics.from_confusion(confusion), confusion, len(dataset), 1.0)
    assert outputs.finish(result, {})["miou"] == 1.0
    with zipfile.ZipFile(tmp_path / "out" / "cityscapes_submission.zip") as archive:
        archive.extractall(tmp_path / "sent")
    truths = [label.replace("labelTrainIds", "labelIds") for _, label in dataset.file_list]
    args = official.args
    args.predictionPath, args.predictionWalk = str(tmp_path / "sent"), None
    for (_, label), truth in zip(dataset.file_list, truths, strict=True):
        ids = np.array(Image.open(label))
        table = np.zeros(256, np.uint8)
        table[:19] = CITYSCAPES_LABEL_IDS
        Image.fromarray(table[ids]).save(truth)
    found = [official.getPrediction(args, truth) for truth in truths]
    args.JSONOutput, args.quiet, args.evalInstLevelScore = False, True, False
    assert official.evaluateImgLists(found, truths, args)["averageScoreClasses"] > 0.999
