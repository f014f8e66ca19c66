# SPDX-License-Identifier: Apache-2.0
"""A picture whose rows are asked for from top to bottom: an array, or a file that is read by blocks."""

import numpy as np


class ArrayRows:
    """The rows of an array.

    Args:
        pixels: `[H, W]` or `[H, W, C]`.

    Attributes:
        size: height and width.
    """

    def __init__(self, pixels: np.ndarray):
        self._pixels = pixels
        self.size = pixels.shape[:2]

    def read(self, top: int, bottom: int) -> np.ndarray:
        """The rows from `top` to before `bottom`."""
        return self._pixels[top:bottom]

    def release(self, top: int) -> None:
        """Rows above `top` will not be asked for again."""

    def close(self) -> None:
        """Nothing is left open."""
