# SPDX-License-Identifier: Apache-2.0
"""Masks of class boundaries, for losses that learn edges."""

import numpy as np


def binary_edges(label: np.ndarray, radius: float, num_classes: int) -> np.ndarray:
    """Marks pixels within `radius` of another class, and labelled pixels within `radius` of the image's border.

    Ignored pixels count as one more class, so that both sides of a boundary with them are marked.

    Args:
        label: `[H, W]`; numbers outside [0, num_classes) are ignored.
        radius: Euclidean distance in pixels, at least 1.
        num_classes: number of classes.

    Returns:
        uint8 `[1, H, W]`, 1 on edges.

    Raises:
        ValueError: radius below 1.
    """
    if radius < 1:
        raise ValueError(f"radius must be at least 1, got {radius}")
    reach = int(radius)
    classes = np.where((label >= 0) & (label < num_classes), label, -1).astype(np.int16)
    rows, columns = classes.shape
    padded = np.pad(classes, reach, constant_values=-1)
    edges = np.zeros(classes.shape, bool)
    for down in range(-reach, reach + 1):
        for right in range(-reach, reach + 1):
            if 0 < down * down + right * right <= radius * radius:
                top, left = reach + down, reach + right
                edges |= padded[top : top + rows, left : left + columns] != classes
    return edges[np.newaxis].astype(np.uint8)
