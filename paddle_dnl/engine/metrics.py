"""Segmentation metrics from one int64 confusion matrix.

Values are those of paddleseg 2.8 for every class that occurs. A class that occurs neither in labels nor in predictions has no
IoU: it is skipped in means and listed in `absent`, where paddleseg 2.8 counts it as 0 and 2.9 as 1.
"""

from dataclasses import dataclass

from paddle_dnl.errors import DataError

import numpy as np


def confusion_matrix(pred: np.ndarray, label: np.ndarray, num_classes: int, ignore_index: int = 255) -> np.ndarray:
    """Pixel counts, int64 `[K, K]`; row is the label, column the prediction.

    Args:
        pred: classes in [0, K), any shape.
        label: the same shape; `ignore_index` does not count.
        num_classes: K.

    Raises:
        DataError: shapes differ, or a label is neither a class nor `ignore_index`.
    """
    if pred.shape != label.shape:
        raise DataError(f"prediction {list(pred.shape)} and label {list(label.shape)} differ in shape")
    valid = label != ignore_index
    truth = label[valid].astype(np.int64)
    if truth.size and (truth.max() >= num_classes or truth.min() < 0):
        bad = sorted(set(np.unique(truth)) - set(range(num_classes)))
        raise DataError(f"label holds {', '.join(map(str, bad[:5]))}; classes are 0 to {num_classes - 1}")
    counts = np.bincount(truth * num_classes + pred[valid], minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


def _ratio(part: np.ndarray, whole: np.ndarray, present: np.ndarray) -> np.ndarray:
    """part / whole, 0 where whole is 0, NaN where the class is absent."""
    ratio = np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)
    return np.where(present, ratio, np.nan)


@dataclass
class Metrics:
    """Scores in [0, 1]; arrays have one entry per class, NaN for absent ones.

    `acc` is the share of right pixels, `kappa` Cohen's, `miou` and `dice` are means over present classes.
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
        """All scores of an int64 confusion matrix `[K, K]`.

        Raises:
            DataError: it counts no pixel at all.
        """
        right = np.diag(confusion).astype(np.float64)
        label_area = confusion.sum(1).astype(np.float64)
        pred_area = confusion.sum(0).astype(np.float64)
        total = label_area.sum()
        if total == 0:
            raise DataError("no labelled pixel was evaluated; every label is ignored")
        present = (label_area + pred_area) > 0
        iou = _ratio(right, label_area + pred_area - right, present)
        dice = _ratio(2 * right, label_area + pred_area, present)
        observed, chance = right.sum() / total, (pred_area * label_area).sum() / total**2
        return cls(
            miou=float(np.nanmean(iou)),
            acc=float(observed),
            kappa=float((observed - chance) / (1 - chance)) if chance < 1 else float("nan"),
            dice=float(np.nanmean(dice)),
            class_iou=iou,
            class_precision=_ratio(right, pred_area, present),
            class_recall=_ratio(right, label_area, present),
            class_dice=dice,
            absent=[int(i) for i in np.flatnonzero(~present)],
        )


class RocCounts:
    """Areas under ROC curves from histograms of scores, so that nothing but counts is kept or exchanged.

    Scores within 1/65536 count as tied.

    Args:
        num_classes: K; for two classes the area of class 1, otherwise the mean over classes of one against the rest.
    """

    BINS = 65536

    def __init__(self, num_classes: int):
        # [class, negative or positive, bin]
        self.counts = np.zeros((num_classes, 2, self.BINS), np.int64)

    def add(self, probabilities: np.ndarray, label: np.ndarray, ignore_index: int) -> None:
        """Takes in softmax scores `[K, H, W]` and the label `[H, W]`."""
        valid = label != ignore_index
        for k, scores in enumerate(probabilities):
            bins = np.minimum((scores[valid] * self.BINS).astype(np.int64), self.BINS - 1)
            positive = (label[valid] == k).astype(np.int64)
            self.counts[k] += np.bincount(positive * self.BINS + bins, minlength=2 * self.BINS).reshape(2, -1)

    def area(self) -> float:
        """The area under the curve, NaN where a class has only positive or only negative pixels everywhere."""
        areas = []
        for negative, positive in self.counts.astype(np.float64):
            if negative.sum() and positive.sum():
                below = np.cumsum(negative) - negative
                areas.append(((below + negative / 2) * positive).sum() / (negative.sum() * positive.sum()))
            else:
                areas.append(np.nan)
        return float(areas[1]) if len(areas) == 2 else float(np.nanmean(areas))
