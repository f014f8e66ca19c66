# SPDX-License-Identifier: Apache-2.0
"""Boundary IoU: IoU of the pixels near contours, sensitive to errors that hardly change the IoU of large objects.

Source: Cheng et al., Boundary IoU (CVPR 2021), with a distance of 2 % of the image's diagonal; counts are summed over
images per class, without ignored pixels.
"""

import math

import cv2
import numpy as np

RATIO = 0.02


def boundary(mask: np.ndarray, distance: int) -> np.ndarray:
    """Pixels of a mask within `distance` (in rows or columns) of its contour; the image's border is contour too.

    Args:
        mask: `[H, W]`, uint8 0 or 1.
        distance: pixels, at least 1.
    """
    side = 2 * distance + 1  # as `distance` erosions by 3x3
    padded = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    inside = cv2.erode(padded, np.ones((side, side), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return mask - inside[1:-1, 1:-1]


class BoundaryCounts:
    """Intersections and unions of boundary regions, int64 `[K]` each.

    Args:
        num_classes: K.
        ignore_index: label whose pixels are left out.
    """

    def __init__(self, num_classes: int, ignore_index: int):
        self.counts = np.zeros((2, num_classes), np.int64)
        self.ignore_index = ignore_index

    def add(self, pred: np.ndarray, label: np.ndarray) -> None:
        """Counts one image; both `[H, W]`."""
        valid = label != self.ignore_index
        distance = max(1, round(RATIO * math.hypot(*label.shape)))
        present = np.union1d(np.unique(label[valid]), np.unique(pred[valid]))
        for k in present.astype(int):
            truth = boundary(((label == k) & valid).astype(np.uint8), distance).astype(bool)
            found = boundary(((pred == k) & valid).astype(np.uint8), distance).astype(bool)
            self.counts[0, k] += np.count_nonzero(truth & found)
            self.counts[1, k] += np.count_nonzero(truth | found)

    def iou(self) -> np.ndarray:
        """Boundary IoU per class, float64 `[K]`; NaN for a class that never occurs."""
        inter, union = self.counts.astype(np.float64)
        return np.divide(inter, union, out=np.full(len(inter), np.nan), where=union > 0)
