# SPDX-License-Identifier: Apache-2.0
"""`--use_multilabel`: masks as labels through train.py, val.py and predict.py, scores by definition and PaddleSeg's code."""

import json
import re

from paddle_dnl.cli import predict, train, val
from paddle_dnl.cli.data import describe_data, preview_data
from paddle_dnl.config import Config
from paddle_dnl.data.datasets import MultilabelDataset
from paddle_dnl.data.masks import join_masks, split_masks
from paddle_dnl.data.transforms import RandomPaddingCrop, Resize
from paddle_dnl.errors import ConfigError, DataError, UsageError
from paddle_dnl.evaluation.evaluator import evaluate
from paddle_dnl.evaluation.inference import predicted_masks
from paddle_dnl.evaluation.metrics import Areas, Metrics, mask_counts
from paddle_dnl.registry import build

import cv2
import numpy as np
import paddle
import pytest
from paddleseg.utils import metrics as their_metrics
from PIL import Image
from tiny_training import CONFIG, TinyNet

BCE = "{types: [{type: BCELoss}], coef: [1, 0.4]}"
SIDE = 24


def make_masks(folder, count=4, classes=3, below=False, value=1):
    """Pictures whose channels show the masks, and label pictures with `classes` masks; returns the masks `[N, K, H, W]`."""
    rng = np.random.default_rng(0)
    masks = np.zeros((count, classes, SIDE, SIDE), np.uint8)
    folder.mkdir(parents=True)
    lines = []
    for i in range(count):
        for k in range(classes):
            top, left = rng.integers(0, SIDE - 12, 2)
            masks[i, k, top : top + 12, left : left + 12] = 1
        image = (masks[i, :3].transpose(1, 2, 0) * 180 + rng.integers(0, 60, (SIDE, SIDE, 3))).astype(np.uint8)
        stored = masks[i].reshape(-1, SIDE) if below else np.concatenate(masks[i], 1)
        cv2.imwrite(str(folder / f"image_{i}.png"), image)
        cv2.imwrite(str(folder / f"label_{i}.png"), stored * value)
        lines.append(f"image_{i}.png label_{i}.png\n")
    (folder / "train.txt").write_text("".join(lines))
    (folder / "val.txt").write_text("".join(lines))
    return masks


def write(folder, changes=()):
    """A configuration as for `Dataset`; PaddleSeg's files have no other key either."""
    text = CONFIG.format(data=folder / "data").replace("{types: [{type: CrossEntropyLoss}], coef: [1, 0.4]}", BCE)
    text = text.replace("learning_rate: 0.05", "learning_rate: 1.0").replace("iters: 10", "iters: 60")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (folder / "config.yml").write_text(text)
    return ["--config", str(folder / "config.yml"), "--device", "cpu"]


def counted(predicted, truth):
    """IoU of each class, pixel by pixel."""
    both, either = (predicted & truth).sum((0, 2, 3)), (predicted | truth).sum((0, 2, 3))
    return both / either


def test_through_all_programs(tmp_path, capsys):
    masks = make_masks(tmp_path / "data").astype(bool)
    flags = write(tmp_path)
    out = tmp_path / "out"
    train.main(
        [*flags, "--use_multilabel", "--do_eval", "--save_interval", "60", "--save_dir", str(out), "--seed", "3"]
    )
    trained = float(re.search(r"#Images: 4 mIoU: (\d\.\d{4})", capsys.readouterr().out)[1])
    weights = ["--model_path", str(out / "best_model/model.pdparams")]
    val.main([*flags, *weights, "--use_multilabel"])
    said = capsys.readouterr().out
    predict.main(
        [
            *flags,
            *weights,
            "--use_multilabel",
            "--image_path",
            str(tmp_path / "data/val.txt"),
            "--save_dir",
            str(tmp_path / "p"),
        ]
    )
    found = np.stack(
        [
            np.asarray(Image.open(tmp_path / f"p/masks/image_{i}.png")).reshape(SIDE, 3, SIDE).transpose(1, 0, 2)
            for i in range(4)
        ]
    ).astype(bool)
    iou = counted(found, masks)
    assert float(re.search(r"mIoU: (\d\.\d{4})", said)[1]) == trained == pytest.approx(iou.mean(), abs=6e-5)
    assert trained > 0.8, "the channels of a picture are its masks"
    for i in range(4):
        numbers = np.asarray(Image.open(tmp_path / f"p/pseudo_color_prediction/image_{i}.png"))
        np.testing.assert_array_equal(numbers, sum((k + 1) * found[i, k] for k in range(3)))
    overlay = cv2.imread(str(tmp_path / "p/added_prediction/image_0.png"))
    picture = cv2.imread(str(tmp_path / "data/image_0.png"))
    far = ~cv2.dilate(found[0].any(0).astype(np.uint8), np.ones((3, 3))).astype(bool)
    np.testing.assert_array_equal(overlay[far], picture[far])
    assert (overlay[found[0].any(0)] != picture[found[0].any(0)]).any(-1).mean() > 0.9


@pytest.mark.parametrize("ignored", [False, True])
def test_scores(ignored):
    """Against PaddleSeg's formulas on its own counts, and where a class is ignored against plain counting."""
    rng = np.random.default_rng(1)
    pred, label = rng.random((2, 4, 9, 7)) > 0.6, (rng.random((2, 4, 9, 7)) > 0.4).astype(np.uint8)
    if ignored:
        label[0, 1, :4] = 255
    counts = mask_counts(pred, label)
    ours = Metrics.from_areas(Areas(*counts))
    valid = label != 255
    np.testing.assert_allclose(ours.class_iou, counted(pred & valid, (label == 1)))
    assert counts[3].tolist() == valid.sum((0, 2, 3)).tolist()
    if not ignored:
        areas = [paddle.to_tensor(counts[i]) for i in (0, 1, 2)]
        class_iou, miou = their_metrics.mean_iou(*areas)
        acc, precision, recall = their_metrics.class_measurement(*areas)
        np.testing.assert_allclose(ours.class_iou, class_iou)
        np.testing.assert_allclose([ours.miou, ours.acc, ours.dice], [miou, acc, their_metrics.dice(*areas)[1]])
        np.testing.assert_allclose([*ours.class_precision, *ours.class_recall], [*precision, *recall])
        assert ours.kappa == pytest.approx(their_metrics.kappa(*areas))
    with pytest.raises(DataError, match="masks are 0 and 1"):
        mask_counts(pred, label + 1)
    logits = rng.normal(0, 0.3, (2, 4, 9, 7)).astype("float32")
    np.testing.assert_array_equal(predicted_masks(paddle.to_tensor(logits)).numpy(), logits > 0)


@pytest.mark.parametrize("below", [False, True])
@pytest.mark.parametrize("classes", [1, 3, 5])
def test_samples(tmp_path, classes, below):
    """Masks follow the picture through resizing and padding, whose pixels are ignored, in any number."""
    masks = make_masks(tmp_path / "data", 1, classes, below)
    stored = np.asarray(Image.open(tmp_path / "data/label_0.png"))
    np.testing.assert_array_equal(split_masks(stored, SIDE, SIDE).transpose(2, 0, 1), masks[0])
    np.testing.assert_array_equal(join_masks(masks[0]), np.concatenate(masks[0], 1))
    given = {
        "dataset_root": str(tmp_path / "data"),
        "num_classes": classes,
        "train_path": str(tmp_path / "data/train.txt"),
    }
    doubled = MultilabelDataset("train", transforms=[Resize([2 * SIDE, 2 * SIDE])], **given)[0]
    assert doubled["img"].shape[1:] == doubled["label"].shape[1:]
    np.testing.assert_array_equal(doubled["label"], masks[0].repeat(2, 1).repeat(2, 2))
    padded = MultilabelDataset("train", transforms=[RandomPaddingCrop([SIDE + 8, SIDE + 8])], **given)[0]["label"]
    assert padded.shape == (classes, SIDE + 8, SIDE + 8)
    np.testing.assert_array_equal((padded == 1).sum((1, 2)), masks[0].sum((1, 2)))
    assert ((padded == 255).sum((1, 2)) == (SIDE + 8) ** 2 - SIDE**2).all()


def test_a_mask_for_none_of_the_others(tmp_path):
    """PaddleSeg's AddMultiLabelAuxiliaryCategory, which `num_classes` counts."""
    masks = make_masks(tmp_path / "data")
    changes = [("num_classes: 3", "num_classes: 4"), ("transforms: [{type: Normalize}]",
               "transforms: [{type: AddMultiLabelAuxiliaryCategory}, {type: Normalize}]")]  # fmt: skip
    write(tmp_path, [*changes, ("- {type: RandomHorizontalFlip}", "- {type: AddMultiLabelAuxiliaryCategory}")])
    config = Config(tmp_path / "config.yml", use_multilabel=True)
    for cfg in (config.val_dataset_cfg, config.train_dataset_cfg):
        dataset = build(cfg, "dataset", "dataset")
        np.testing.assert_array_equal(dataset[1]["label"], [~masks[1].any(0), *masks[1]])
        image, label = dataset.file_list[1]
        counts = dataset.count(dataset.image_format.read(image), image, label)
        assert counts.pixels.tolist() == dataset[1]["label"].sum((1, 2)).tolist()
    result = evaluate(TinyNet(4), build(config.val_dataset_cfg, "dataset", "dataset"), use_multilabel=True)
    assert len(result.metrics.class_iou) == 4 and result.confusion is None


def test_what_does_not_fit_is_one_line(tmp_path):
    make_masks(tmp_path / "data", value=255)
    flags = write(tmp_path)
    with pytest.raises(DataError, match="train_dataset: its labels hold only 0 and 255"):
        train.main([*flags, "--use_multilabel"])
    with pytest.raises(DataError, match=r"label_0.png: is 72x24, its image .*image_0.png is 24x24"):
        train.main(flags)
    for changes, message in (
        ([("type: BCELoss", "type: CrossEntropyLoss")], "loss.types.0: CrossEntropyLoss learns one class per pixel"),
        ([("type: Dataset", "type: Cityscapes")], "train_dataset.type: Cityscapes has one class per pixel"),
    ):  # fmt: skip
        write(tmp_path, changes)
        with pytest.raises(ConfigError, match=message):
            train.main([*flags, "--use_multilabel"])
    write(tmp_path, [("num_classes: 3", "num_classes: 4")])
    with pytest.raises(DataError, match="must hold 4 masks of that size side by side"):
        train.main([*flags, "--use_multilabel"])
    dataset = MultilabelDataset(
        "val", str(tmp_path / "data"), [], 3, val_path=str(tmp_path / "data/val.txt")
    )  # fmt: skip
    with pytest.raises(UsageError, match="neither auc_roc nor"):
        evaluate(TinyNet(3), dataset, use_multilabel=True, auc_roc=True)
    write(tmp_path)
    for flag in ("--save_prob", "--cityscapes_submission"):
        with pytest.raises(UsageError, match=f"{flag} is for one class per pixel"):
            val.main([*flags, "--model_path", "m", "--use_multilabel", "--save_dir", str(tmp_path / "s"), flag])


@pytest.mark.parametrize("auxiliary", [False, True])
def test_described_and_previewed(tmp_path, capsys, auxiliary):
    """`data describe` counts each mask for itself, from a configuration or a folder; both pages draw the masks."""
    masks = make_masks(tmp_path / "data")
    counted_masks = np.concatenate([~masks.any(1, keepdims=True), masks], 1) if auxiliary else masks
    changes = [("num_classes: 3", f"num_classes: {counted_masks.shape[1]}")]
    if auxiliary:
        changes += [("- {type: RandomHorizontalFlip}", "- {type: AddMultiLabelAuxiliaryCategory}"),
                    ("transforms: [{type: N", "transforms: [{type: AddMultiLabelAuxiliaryCategory}, {type: N")]  # fmt: skip
    write(tmp_path, changes)
    config, out = str(tmp_path / "config.yml"), tmp_path / "out"
    assert describe_data.main([config, "--use_multilabel", "--save_dir", str(out)]) == 0
    found = json.loads((out / "describe.json").read_text())
    area = 4 * SIDE * SIDE
    for row, mask in zip(found["classes"], counted_masks.transpose(1, 0, 2, 3), strict=True):
        assert row["pixels"]["train"] == mask.sum() and row["images"]["train"] == mask.any((1, 2)).sum()
        assert row["share"]["train"] == pytest.approx(mask.sum() / area)
    assert found["suggested_class_weights"] is None and "class weights" not in capsys.readouterr().out
    assert (out / "describe.html").read_text().count("<img") == 8
    preview_data.main([config, "--use_multilabel", "--out", str(tmp_path / "p.html"), "--samples", "1"])
    assert (tmp_path / "p.html").read_text().count("<img") == 4
    dataset = build(Config(config, use_multilabel=True).val_dataset_cfg, "dataset", "dataset")
    np.testing.assert_array_equal(dataset.stored_label(2), counted_masks[2])
    if not auxiliary:
        folder = tmp_path / "data"
        for name in ("train.txt", "val.txt"):
            (folder / name).write_text((folder / name).read_text().replace(" ", "\t"))
        with pytest.raises(UsageError, match="with --use_multilabel a classes.txt must say"):
            describe_data.main([str(folder), "--use_multilabel"])
        (folder / "classes.txt").write_text("red\ngreen\nblue\n")
        describe_data.main([str(folder), "--use_multilabel", "--save_dir", str(tmp_path / "again")])
        again = json.loads((tmp_path / "again/describe.json").read_text())
        assert [row["name"] for row in again["classes"]] == ["red", "green", "blue"]
        assert [row["pixels"] for row in again["classes"]] == [row["pixels"] for row in found["classes"]]
