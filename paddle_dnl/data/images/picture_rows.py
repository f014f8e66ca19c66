# SPDX-License-Identifier: Apache-2.0
"""A picture that is read row by row from top to bottom: `ArrayRows` for an array, or `BlockRows` for a file."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from paddle_dnl.data.images.block_rows import BlockRows

# Smaller pictures are read as a whole: 32 million pixels take 100 MB.
BLOCKS_FROM = 32_000_000


class ArrayRows:
    """The rows of an array.

    Args:
        pixels: `[H, W]` or `[H, W, C]`.

    Attributes:
        size: height and width.
        by_blocks: that it is never held whole, which an array is.
    """

    by_blocks = False

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


@dataclass
class Tiled:
    """A picture that is too large for a model and is worked through in tiles."""

    rows: "ArrayRows | BlockRows"

    @property
    def is_stream(self) -> bool:
        """Whether it is so large that its results are better written in strips."""
        return self.rows.by_blocks or self.rows.size[0] * self.rows.size[1] >= BLOCKS_FROM
