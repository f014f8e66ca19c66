# SPDX-License-Identifier: Apache-2.0
"""Segmentation metrics from one int64 confusion matrix.

Values are those of paddleseg 2.8 for every class that occurs. A class that occurs neither in labels nor in predictions
has no IoU: it is skipped in means and listed in `absent`, where paddleseg 2.8 counts it as 0 and 2.9 as 1.
"""

from dataclasses import dataclass

from paddle_dnl.errors import DataError

import numpy as np


def confusion_matrix(pred: np.ndarray, label: np.ndarray, num_classes: int, ignore_index: int = 255) -> np.ndarray:
    """Pixel counts, int64 `[K, K]`; row is the label, column the prediction.

    Args:
        pred: classes in [0, K), any shape.
        label: the same shape; pixels of `ignore_index` are not counted. uint8 is fastest.
        num_classes: K.

    Raises:
        DataError: shapes differ, a label is neither a class nor `ignore_index`, or a prediction is not a class.
    """
    if pred.shape != label.shape:
        raise DataError(f"prediction {list(pred.shape)} and label {list(label.shape)} differ in shape")
    if pred.size and not 0 <= int(pred.min()) <= int(pred.max()) < num_classes:
        raise DataError(
            f"prediction holds {int(pred.min())} to {int(pred.max())}; classes are 0 to {num_classes - 1}. "
            "Do num_classes of the model and of the dataset differ?"
        )
    if label.dtype != np.uint8:
        valid = label != ignore_index
        label, pred = label[valid], pred[valid]
        ignore_index = None
        if label.size and not 0 <= int(label.min()) <= int(label.max()) < num_classes:
            _refuse(sorted(set(np.unique(label).tolist()) - set(range(num_classes))), num_classes)
    # One row per possible label value instead of masking ignored pixels; checked and cropped afterwards.
    rows = max(256, num_classes)
    places = label.astype(np.int64)
    places *= num_classes
    places += pred
    counts = np.bincount(places.ravel(), minlength=rows * num_classes).reshape(rows, num_classes)
    if ignore_index is not None and 0 <= ignore_index < rows:
        counts[ignore_index] = 0
    beyond = np.flatnonzero(counts[num_classes:].any(1)) + num_classes
    if beyond.size:
        _refuse(beyond.tolist(), num_classes)
    return counts[:num_classes].astype(np.int64)


def _refuse(values: list[int], num_classes: int) -> None:
    raise DataError(f"label holds {', '.join(map(str, values[:5]))}; classes are 0 to {num_classes - 1}")


def _ratio(part: np.ndarray, whole: np.ndarray, present: np.ndarray) -> np.ndarray:
    """part / whole, 0 where whole is 0, NaN where the class is absent."""
    ratio = np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)
    return np.where(present, ratio, np.nan)


@dataclass
class Areas:
    """Pixels of each class, int64 `[K]`.

    Attributes:
        right: predicted and labelled as the class (true positives).
        predicted, labelled: predicted, or labelled, as the class; without ignored pixels.
        counted: pixels that are not ignored, for all classes together or for each.
    """

    right: np.ndarray
    predicted: np.ndarray
    labelled: np.ndarray
    counted: np.ndarray | int

    @classmethod
    def of(cls, confusion: np.ndarray) -> "Areas":
        """From an int64 confusion matrix `[K, K]`, rows are labels."""
        return cls(np.diag(confusion), confusion.sum(0), confusion.sum(1), confusion.sum())


def mask_counts(pred: np.ndarray, label: np.ndarray, ignore_index: int = 255) -> np.ndarray:
    """The four fields of `Areas`, int64 `[4, K]`, of multi-label masks.

    Args:
        pred: bool `[B, K, h, w]`.
        label: the same shape: 1, 0, or `ignore_index` for ignored pixels.

    Raises:
        DataError: shapes differ, or the label holds another value.
    """
    if pred.shape != label.shape:
        raise DataError(f"predicted masks {list(pred.shape)} and label {list(label.shape)} differ in shape")
    truth, valid = label == 1, label != ignore_index
    if (valid & ~truth & (label != 0)).any():
        raise DataError(f"label holds {int(label[valid].max())}; masks are 0 and 1, or {ignore_index} for ignored")
    found = pred & valid
    return np.array([part.sum((0, 2, 3), dtype=np.int64) for part in (found & truth, found, truth, valid)])


@dataclass
class Metrics:
    """Scores in [0, 1]; arrays have one entry per class, NaN for absent ones.

    `acc` is the pixel accuracy, `kappa` Cohen's kappa, `miou` and `dice` are means over present classes.
    """

    miou: float
    acc: float
    kappa: float
    dice: float
    class_iou: np.ndarray
    class_precision: np.ndarray
    class_recall: np.ndarray
    class_dice: np.ndarray
    absent: list[int]

    @classmethod
    def from_confusion(cls, confusion: np.ndarray) -> "Metrics":
        """Scores of an int64 confusion matrix `[K, K]`.

        Raises:
            DataError: it is all zero.
        """
        return cls.from_areas(Areas.of(confusion))

    @classmethod
    def from_areas(cls, areas: Areas) -> "Metrics":
        """Scores by PaddleSeg's formulas; with multi-label masks `acc` is the share of correct predictions.

        Raises:
            DataError: no labelled pixel.
        """
        right, pred_area, label_area = (x.astype(np.float64) for x in (areas.right, areas.predicted, areas.labelled))
        total = label_area.sum()
        if total == 0:
            raise DataError("no labelled pixel was evaluated; every label is ignored")
        present = (label_area + pred_area) > 0
        iou = _ratio(right, label_area + pred_area - right, present)
        dice = _ratio(2 * right, label_area + pred_area, present)
        observed, chance = right.sum() / total, (pred_area * label_area).sum() / total**2
        return cls(
            miou=float(np.nanmean(iou)),
            acc=float(right.sum() / max(1.0, pred_area.sum())),
            kappa=float((observed - chance) / (1 - chance)) if chance < 1 else float("nan"),
            dice=float(np.nanmean(dice)),
            class_iou=iou,
            class_precision=_ratio(right, pred_area, present),
            class_recall=_ratio(right, label_area, present),
            class_dice=dice,
            absent=[int(i) for i in np.flatnonzero(~present)],
        )


class RocCounts:
    """Area under ROC curves from histograms of scores, in constant memory; counts can be summed over ranks exactly.

    Bins are 1/65536 wide. Within 1/256 of 0 and of 1, where most scores of a trained network are, their width is 1/256 of the
    distance, so that 1e-12 and 1e-9 are in different bins. Scores in one bin are ties.

    Args:
        num_classes: K; for two classes the area of class 1, otherwise the mean of one-versus-rest areas.
    """

    _EDGE = np.float32(1 / 256)
    _EDGE_BIN = int(_EDGE.view(np.int32)) >> 15
    _HALF_BIN = _EDGE_BIN + int((0.5 - _EDGE) * 65536)
    BINS = 2 * _HALF_BIN + 1

    def __init__(self, num_classes: int):
        # [class, negative or positive, bin]
        self.counts = np.zeros((num_classes, 2, self.BINS), np.int64)

    def add(self, probabilities: np.ndarray, label: np.ndarray, ignore_index: int) -> None:
        """Adds softmax scores `[K, H, W]` and the label `[H, W]`."""
        valid = label != ignore_index
        label = label[valid]
        for k, scores in enumerate(probabilities):
            scores = np.nan_to_num(np.clip(scores[valid], 0, 1, dtype=np.float32), copy=False)
            low = scores < 0.5
            # Exact in float32: 1 - score, and the bins, since positive floats are ordered like their bit patterns.
            distance = np.where(low, scores, 1 - scores)
            wide = self._EDGE_BIN + ((distance - self._EDGE) * 65536).astype(np.int32)
            bins = np.where(distance < self._EDGE, distance.view(np.int32) >> 15, wide)
            places = np.where(low, bins, 2 * self._HALF_BIN - bins) + (label == k) * self.BINS
            self.counts[k] += np.bincount(places, minlength=2 * self.BINS).reshape(2, -1)

    def area(self) -> float:
        """The area under the curve; classes without positive or without negative pixels are left out of the mean.

        NaN if that is so for all classes.
        """
        areas = []
        for negative, positive in self.counts.astype(np.float64):
            if negative.sum() and positive.sum():
                below = np.cumsum(negative) - negative
                areas.append(((below + negative / 2) * positive).sum() / (negative.sum() * positive.sum()))
            else:
                areas.append(np.nan)
        if len(areas) == 2:
            return float(areas[1])
        return float(np.nanmean(areas)) if not np.all(np.isnan(areas)) else float("nan")
