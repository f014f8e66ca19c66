# SPDX-License-Identifier: Apache-2.0
"""Resizing of arrays with any number of channels, and back to the size before the preprocessing."""

import cv2
import numpy as np

_CHANNELS = 128  # limit of OpenCV 5; OpenCV 4 resizes 512 at once


def resized(array: np.ndarray, size: tuple[int, int], interpolation: int = cv2.INTER_LINEAR) -> np.ndarray:
    """`cv2.resize` for any number of channels; more than OpenCV's limit are resized in parts.

    Args:
        array: `[h, w]` or `[h, w, C]`.
        size: (width, height).
        interpolation: one of OpenCV's `INTER_...`.

    Returns:
        `[H, W]` or `[H, W, C]`.
    """
    if array.ndim == 2:
        return cv2.resize(array, size, interpolation=interpolation)
    parts = [array[..., i : i + _CHANNELS] for i in range(0, array.shape[2], _CHANNELS)]
    parts = [cv2.resize(part, size, interpolation=interpolation).reshape(size[1], size[0], -1) for part in parts]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)


def restored(picture: np.ndarray, info: list, interpolation: int) -> np.ndarray:
    """`[K, h, w]` at the size that the picture had before the preprocessing in `info`."""
    picture = picture.transpose(1, 2, 0)
    for name, (height, width) in reversed(info):
        height, width = int(height), int(width)
        if name == "resize":
            picture = resized(picture, (width, height), interpolation)
        else:
            picture = picture[:height, :width]
    return picture.transpose(2, 0, 1)
