"""Metrics against scikit-learn and against paddleseg's own functions where a class is present."""

from paddle_dnl.engine.metrics import Metrics, RocCounts, confusion_matrix
from paddle_dnl.errors import DataError

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


def test_against_paddleseg():
    pred, label = _maps()
    confusion = confusion_matrix(pred, label, 5)
    areas = [np.diag(confusion), confusion.sum(0), confusion.sum(1)]
    areas = [paddle.to_tensor(area) for area in areas]
    ours = Metrics.from_confusion(confusion)
    class_iou, miou = paddleseg_metrics.mean_iou(*areas)
    acc, precision, recall = paddleseg_metrics.class_measurement(*areas)
    np.testing.assert_allclose(ours.class_iou, class_iou)
    np.testing.assert_allclose([ours.miou, ours.acc], [miou, acc])
    np.testing.assert_allclose(ours.class_precision, precision)
    np.testing.assert_allclose(ours.class_recall, recall)
    np.testing.assert_allclose(ours.kappa, paddleseg_metrics.kappa(*areas))
    np.testing.assert_allclose(ours.dice, paddleseg_metrics.dice(*areas)[1])


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


def test_wrong_labels_are_named():
    with pytest.raises(DataError, match="19, 89"):
        confusion_matrix(np.zeros((1, 3), int), np.array([[19, 89, 255]]), 19)
    with pytest.raises(DataError, match="shape"):
        confusion_matrix(np.zeros((1, 3), int), np.zeros((3, 1), int), 19)
    with pytest.raises(DataError, match="no labelled pixel"):
        Metrics.from_confusion(np.zeros((3, 3), np.int64))


@pytest.mark.parametrize("classes", [2, 4])
def test_roc_area_against_sklearn(classes):
    rng = np.random.default_rng(1)
    label = rng.integers(0, classes, (30, 40))
    scores = rng.normal(size=(classes, 30, 40)) + 1.5 * (label[None] == np.arange(classes)[:, None, None])
    probabilities = np.exp(scores) / np.exp(scores).sum(0)
    curves = RocCounts(classes)
    for part in (slice(0, 11), slice(11, 30)):  # counts add up over images
        curves.add(probabilities[:, part], label[part], 255)
    flat = probabilities.reshape(classes, -1).T
    wanted = sklearn_metrics.roc_auc_score(label.ravel(), flat[:, 1] if classes == 2 else flat, multi_class="ovr")
    np.testing.assert_allclose(curves.area(), wanted, atol=1e-4)
