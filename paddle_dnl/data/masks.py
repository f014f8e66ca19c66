# SPDX-License-Identifier: Apache-2.0
"""Multi-label segmentation: a binary mask per class, in PaddleSeg's format for `--use_multilabel`.

A label picture holds the K masks of an image side by side, `[H, K * W]`, or below each other, `[K * H, W]`: 1 where the class
is there, 0 where it is not, `ignore_index` where nobody knows.
"""

import numpy as np


def split_masks(label: np.ndarray, height: int, width: int) -> np.ndarray | None:
    """The masks `[H, W, K]` of a label picture of an image of this size; None where it does not hold whole masks."""
    rows, columns = label.shape
    if rows == height and columns % width == 0:
        return label.reshape(height, -1, width).transpose(0, 2, 1)
    if columns == width and rows % height == 0:
        return label.reshape(-1, height, width).transpose(1, 2, 0)
    return None


def join_masks(masks: np.ndarray) -> np.ndarray:
    """Masks `[K, H, W]` side by side, `[H, K * W]`."""
    return np.concatenate(list(masks), axis=1)


def summed_numbers(masks: np.ndarray) -> np.ndarray:
    """One number per pixel, `[H, W]`: 0 without a class, else the sum of the numbers of its classes, counted from 1.

    That is what PaddleSeg draws. Where classes overlap, the number is another class's or none's.

    Args:
        masks: `[K, H, W]`, 0 or 1.
    """
    return np.tensordot(np.arange(1, len(masks) + 1), masks.astype(np.int64), 1)
