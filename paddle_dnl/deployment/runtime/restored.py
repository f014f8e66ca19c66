# SPDX-License-Identifier: Apache-2.0
"""Undoes what the preprocessing did to a picture's size, for classes and scores in NumPy."""

import cv2
import numpy as np

_CHANNELS = 128  # that OpenCV 5 resizes at once; OpenCV 4 takes 512


def restored(picture: np.ndarray, info: list, interpolation: int) -> np.ndarray:
    """`[K, h, w]` at the size that the picture had before the preprocessing in `info`."""
    picture = picture.transpose(1, 2, 0)
    for name, (height, width) in reversed(info):
        height, width = int(height), int(width)
        if name == "resize":
            parts = [picture[..., i : i + _CHANNELS] for i in range(0, picture.shape[2], _CHANNELS)]
            parts = [cv2.resize(part, (width, height), interpolation=interpolation) for part in parts]
            parts = [part.reshape(height, width, -1) for part in parts]
            picture = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)
        else:
            picture = picture[:height, :width]
    return picture.transpose(2, 0, 1)
