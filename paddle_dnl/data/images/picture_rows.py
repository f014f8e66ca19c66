# SPDX-License-Identifier: Apache-2.0
"""A picture whose rows are asked for from top to bottom: an array, or a file that is read by blocks."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from paddle_dnl.data.images.block_rows import BlockRows

# Pictures of fewer pixels are read whole: 32 million are 100 MB.
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
        """The rows from `top` to before `bottom`."""
        return self._pixels[top:bottom]

    def release(self, top: int) -> None:
        """Rows above `top` will not be asked for again."""

    def close(self) -> None:
        """Nothing is left open."""


@dataclass
class Tiled:
    """A picture that is too large for a model and is worked through in tiles."""

    rows: "ArrayRows | BlockRows"

    @property
    def is_stream(self) -> bool:
        """Whether it is so large that its results are better written in strips."""
        return self.rows.by_blocks or self.rows.size[0] * self.rows.size[1] >= BLOCKS_FROM
