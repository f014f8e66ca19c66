# SPDX-License-Identifier: Apache-2.0
"""Expected calibration error: the mean difference between confidence and accuracy."""

import numpy as np


class CalibrationCounts:
    """Per bin of confidence: pixels, correct pixels and sum of confidences, float64 `[3, bins]`.

    Source: Guo et al., On Calibration of Modern Neural Networks (ICML 2017), with 15 bins.

    Args:
        bins: number of equal bins in [0, 1].
    """

    def __init__(self, bins: int = 15):
        self.counts = np.zeros((3, bins), np.float64)

    def add(self, confidence: np.ndarray, correct: np.ndarray) -> None:
        """Adds pixels.

        Args:
            confidence: largest probability of each pixel, any shape.
            correct: whether the class of that probability is the label, same shape.
        """
        bins = self.counts.shape[1]
        confidence = np.clip(confidence.ravel().astype(np.float64), 0, 1)
        places = np.minimum((confidence * bins).astype(np.int64), bins - 1)
        self.counts[0] += np.bincount(places, minlength=bins)
        self.counts[1] += np.bincount(places, weights=correct.ravel(), minlength=bins)
        self.counts[2] += np.bincount(places, weights=confidence, minlength=bins)

    def error(self) -> float:
        """Mean over pixels of |accuracy - mean confidence| of their bin; NaN without pixels."""
        total = self.counts[0].sum()
        return float(np.abs(self.counts[1] - self.counts[2]).sum() / total) if total else float("nan")
