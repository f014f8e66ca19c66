# SPDX-License-Identifier: Apache-2.0
"""Metrics against scikit-learn and against paddleseg's own functions where a class is present."""

from paddle_dnl.errors import DataError
from paddle_dnl.evaluation.metrics import Metrics, RocCounts, confusion_matrix

import numpy as np
import paddle
import pytest
from paddleseg.utils import metrics as paddleseg_metrics
from sklearn import metrics as sklearn_metrics


def _maps(classes=5, seed=0, ignore=True):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, classes, (3, 40, 50))
    pred = np.where(rng.random(label.shape) < 0.6, label, rng.integers(0, classes, label.shape))
    if ignore:
        label[rng.random(label.shape) < 0.1] = 255
    return pred, label


@pytest.mark.parametrize("seed", range(3))
def test_against_sklearn(seed):
    pred, label = _maps(seed=seed)
    valid = label != 255
    found = confusion_matrix(pred, label, 5)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, sklearn_metrics.confusion_matrix(label[valid], pred[valid]))
    scores = Metrics.from_confusion(found)
    np.testing.assert_allclose(
        scores.class_iou, sklearn_metrics.jaccard_score(label[valid], pred[valid], average=None), rtol=1e-12
    )
    np.testing.assert_allclose(scores.kappa, sklearn_metrics.cohen_kappa_score(label[valid], pred[valid]), rtol=1e-12)
    np.testing.assert_allclose(scores.acc, sklearn_metrics.accuracy_score(label[valid], pred[valid]))
    np.testing.assert_allclose(scores.dice, sklearn_metrics.f1_score(label[valid], pred[valid], average="macro"))


def _areas(pred, label, classes):
    """(intersection, predicted, labelled) pixels of each class, counted one class at a time as paddleseg does."""
    valid = label != 255
    return [
        paddle.to_tensor([int(np.sum(mask(i))) for i in range(classes)])
        for mask in (
            lambda i: (pred == i) & (label == i),
            lambda i: (pred == i) & valid,
            lambda i: label == i,
        )
    ]


@pytest.mark.parametrize("classes", [5, 8], ids=["all occur", "three absent"])
def test_against_paddleseg(classes):
    pred, label = _maps()
    pred[pred == 4] = 3  # labelled, never predicted
    label[label == 2] = 1  # predicted, never labelled
    areas = _areas(pred, label, classes)
    ours = Metrics.from_confusion(confusion_matrix(pred, label, classes))
    class_iou, miou = paddleseg_metrics.mean_iou(*areas)
    acc, precision, recall = paddleseg_metrics.class_measurement(*areas)
    class_dice, dice = paddleseg_metrics.dice(*areas)
    present = slice(0, 5)
    np.testing.assert_array_equal(ours.class_iou[present], class_iou[present])
    np.testing.assert_array_equal(ours.class_precision[present], precision[present])
    np.testing.assert_array_equal(ours.class_recall[present], recall[present])
    np.testing.assert_array_equal(ours.class_dice[present], class_dice[present])
    np.testing.assert_allclose([ours.acc, ours.kappa], [acc, paddleseg_metrics.kappa(*areas)], rtol=1e-14)
    # An absent class counts in paddleseg's means: its IoU as 0 up to 2.8 and as 1 from 2.9 on, its Dice as 0.
    assert set(class_iou[5:]) <= {0.0, 1.0} and not class_dice[5:].any()
    means = [(ours.miou * 5 + class_iou[5:].sum()) / classes, ours.dice * 5 / classes]
    np.testing.assert_allclose(means, [miou, dice], rtol=1e-14)
    assert ours.absent == list(range(5, classes))


@pytest.mark.parametrize("kind", ["uint8", "uint16", "int32", "int64"])
@pytest.mark.parametrize("classes, ignore", [(5, 255), (5, 4), (5, 0), (300, 255), (256, 255)])
def test_every_label_type_counts_the_same(kind, classes, ignore):
    rng = np.random.default_rng(4)
    label = rng.integers(0, min(classes, 256), (9, 50))
    pred = rng.integers(0, classes, label.shape).astype("int32")
    wanted = np.zeros((classes, classes), np.int64)
    for truth, found in zip(label.ravel(), pred.ravel(), strict=True):
        wanted[truth, found] += truth != ignore
    found = confusion_matrix(pred, label.astype(kind), classes, ignore)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, wanted)


def test_negative_ignore_index():
    found = confusion_matrix(np.array([0, 1, 1]), np.array([0, -1, 0]), 2, -1)
    np.testing.assert_array_equal(found, [[1, 1], [0, 0]])


def test_absent_classes_are_skipped_and_listed():
    label = np.array([[0, 0, 2, 2]])
    pred = np.array([[0, 2, 2, 4]])
    scores = Metrics.from_confusion(confusion_matrix(pred, label, 6))
    assert scores.absent == [1, 3, 5]
    # class 0: 1/2, class 2: 1/3, class 4 (predicted only): 0
    np.testing.assert_allclose(scores.miou, (1 / 2 + 1 / 3 + 0) / 3)
    assert np.isnan(scores.class_iou[1]) and scores.class_recall[4] == 0


def test_counts_beyond_32_bits():
    confusion = np.array([[3_000_000_000, 10], [5, 4_000_000_000]], dtype=np.int64)
    np.testing.assert_allclose(Metrics.from_confusion(confusion).acc, 7e9 / (7e9 + 15))


@pytest.mark.parametrize("kind", ["uint8", "int64"])
def test_wrong_labels_are_named(kind):
    with pytest.raises(DataError, match="19, 89;"):
        confusion_matrix(np.zeros((1, 3), int), np.array([[19, 89, 255]], kind), 19)
    with pytest.raises(DataError, match="prediction holds 0 to 3"):
        # Not to be taken for label 1, prediction 0.
        confusion_matrix(np.array([[0, 3]]), np.array([[0, 0]], kind), 3)
    with pytest.raises(DataError, match="shape"):
        confusion_matrix(np.zeros((1, 3), int), np.zeros((3, 1), int), 19)
    with pytest.raises(DataError, match="no labelled pixel"):
        Metrics.from_confusion(np.zeros((3, 3), np.int64))


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("sureness", [1, 6, 12])
def test_roc_area_against_sklearn(classes, sureness):
    """Also for networks whose scores all lie near 0 and 1, and with pixels to ignore."""
    rng = np.random.default_rng(1)
    label = rng.choice(classes, (60, 80), p=[0.9] + [0.1 / (classes - 1)] * (classes - 1))
    scores = rng.normal(size=(classes, 60, 80)) + 1.5 * (label[None] == np.arange(classes)[:, None, None])
    scores[0] += 1
    scores = np.exp(sureness * (scores - scores.max(0)))
    probabilities = (scores / scores.sum(0)).astype(np.float32)
    ignored = rng.random(label.shape) < 0.2
    curves = RocCounts(classes)
    for part in (slice(0, 11), slice(11, 60)):  # counts add up over images
        curves.add(probabilities[:, part], np.where(ignored, 255, label)[part], 255)
    flat, truth = probabilities[:, ~ignored], label[~ignored]
    areas = [sklearn_metrics.roc_auc_score(truth == k, flat[k]) for k in range(classes)]
    np.testing.assert_allclose(curves.area(), areas[1] if classes == 2 else np.mean(areas), atol=2e-5)


def test_roc_area_of_ties_and_lone_classes():
    curves = RocCounts(2)
    assert np.isnan(curves.area())
    curves.add(np.full((2, 1, 4), 0.5), np.array([[0, 1, 1, 0]]), 255)
    assert curves.area() == 0.5
    curves = RocCounts(3)
    curves.add(np.array([[[0.9, 0.2]], [[0.1, 0.8]], [[0.0, 0.0]]]), np.array([[0, 1]]), 255)
    assert curves.area() == 1  # class 2 never occurs
