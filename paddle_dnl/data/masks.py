# SPDX-License-Identifier: Apache-2.0
"""Multi-label segmentation: one binary mask per class, in PaddleSeg's format for `--use_multilabel`.

A label picture contains the K masks of an image side by side, `[H, K * W]`, or one below the other, `[K * H, W]`. A mask is 1
where the class is present, 0 where it is not, and `ignore_index` where that is unknown.
"""

import numpy as np


def split_masks(label: np.ndarray, height: int, width: int) -> np.ndarray | None:
    """The masks `[H, W, K]` in a label picture, for an image of this size; None if the picture's size is no multiple of it."""
    rows, columns = label.shape
    if rows == height and columns % width == 0:
        return label.reshape(height, -1, width).transpose(0, 2, 1)
    if columns == width and rows % height == 0:
        return label.reshape(-1, height, width).transpose(1, 2, 0)
    return None


def join_masks(masks: np.ndarray) -> np.ndarray:
    """Concatenates masks `[K, H, W]` side by side, `[H, K * W]`."""
    return np.concatenate(list(masks), axis=1)


def summed_numbers(masks: np.ndarray) -> np.ndarray:
    """One number per pixel, `[H, W]`: the sum of k + 1 over its classes k, or 0 without a class.

    PaddleSeg draws this number. It is ambiguous where classes overlap.

    Args:
        masks: `[K, H, W]`, 0 or 1.
    """
    return np.tensordot(np.arange(1, len(masks) + 1), masks.astype(np.int64), 1)
