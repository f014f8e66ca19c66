# SPDX-License-Identifier: Apache-2.0
"""A picture that is read row by row from top to bottom: `ArrayRows` for an array, or `BlockRows` for a file."""

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
        """The rows `top` to `bottom - 1`."""
        return self._pixels[top:bottom]

    def release(self, top: int) -> None:
        """Does nothing; `BlockRows` frees memory here."""

    def close(self) -> None:
        """Does nothing; `BlockRows` closes its file here."""
