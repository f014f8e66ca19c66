# SPDX-License-Identifier: Apache-2.0
"""Undoes what the preprocessing did to a picture's size, for classes and scores in NumPy."""

from paddle_dnl.data.images.resizing import resized

import numpy as np


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
