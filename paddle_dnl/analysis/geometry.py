# SPDX-License-Identifier: Apache-2.0
"""Conversion between pixels of the original image and positions of a feature map."""

from collections.abc import Sequence

from paddle_dnl.errors import UsageError
from paddle_dnl.evaluation.inference import restore
from paddle_dnl.nn.resize import resize

import numpy as np
import paddle


class Geometry:
    """Maps pixels of the original image to positions of a feature map and back, for one image.

    A position corresponds to the pixels whose logits it would determine if the map were enlarged to the input, as in
    the last resize of the model.

    Args:
        input_size: (height, width) of the network input.
        map_size: (height, width) of the feature map.
        trans_info: sizes before each transform, see `paddle_dnl.evaluation.inference.restore`.
        align_corners: setting of the model.
    """

    def __init__(self, input_size, map_size, trans_info: Sequence = (), align_corners: bool = False):
        self.input_size, self.map_size = tuple(input_size), tuple(map_size)
        self.trans_info, self.align_corners = trans_info, align_corners
        self._cells, self._plans = None, {}

    def cells(self) -> np.ndarray:
        """Returns the position of each pixel of the original image, `[H, W]` int64."""
        if self._cells is None:
            height, width = self.input_size
            ramps = np.empty((1, 2, height, width), np.float32)
            ramps[0, 0], ramps[0, 1] = np.arange(height, dtype=np.float32)[:, None], np.arange(width, dtype=np.float32)
            # Coordinates of each original pixel in the network input: coordinate ramps are resized like logits.
            y, x = restore(paddle.to_tensor(ramps), self.trans_info).numpy()[0]
            self._cells = self._along(y, 0) * self.map_size[1] + self._along(x, 1)
        return self._cells

    def _along(self, coordinate: np.ndarray, axis: int) -> np.ndarray:
        length, cells = self.input_size[axis], self.map_size[axis]
        if self.align_corners:
            found = np.rint(coordinate.astype(np.float64) * ((cells - 1) / max(length - 1, 1)))
        else:
            found = np.floor((coordinate.astype(np.float64) + 0.5) * (cells / length))
        return found.astype(np.int64).clip(0, cells - 1)

    def position(self, x: int, y: int) -> int:
        """Returns the position of one pixel of the original image.

        Raises:
            UsageError: the pixel is outside the image.
        """
        height, width = self.cells().shape
        if not (0 <= x < width and 0 <= y < height):
            raise UsageError(f"the point {x},{y} lies outside the image, which is {width} wide and {height} high")
        return int(self.cells()[y, x])

    def pixels(self, rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Converts fractional (row, column) of the feature map to (x, y) in pixels of the network input."""
        found = []
        for coordinate, length, cells in zip((columns, rows), self.input_size[::-1], self.map_size[::-1], strict=True):
            if self.align_corners:
                found.append(coordinate * ((length - 1) / max(cells - 1, 1)))
            else:
                found.append((coordinate + 0.5) * (length / cells) - 0.5)
        return found[0], found[1]

    def original_pixels(self, rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Converts fractional (row, column) of the feature map to (x, y) in pixels of the original image."""
        x, y = self.pixels(rows, columns)
        size = self.input_size
        for name, before in reversed(list(self.trans_info)):
            if name == "resize":  # padding is on the right and at the bottom, so coordinates do not change
                x = (x + 0.5) * (before[1] / size[1]) - 0.5
                y = (y + 0.5) * (before[0] / size[0]) - 0.5
            size = before
        return x, y

    def enlarge(self, maps: np.ndarray) -> np.ndarray:
        """Interpolates maps `[n, h, w]` like logits to the size of the original image, `[n, H, W]` float32."""
        large = resize(paddle.to_tensor(maps[None].astype(np.float32)), list(self.input_size), self.align_corners)
        return restore(large, self.trans_info).numpy()[0]

    def extent(self) -> tuple[int, int]:
        """Returns the numbers of rows and columns of positions that the original image covers."""
        cells = self.cells()
        return int(cells.max() // self.map_size[1]) + 1, int((cells % self.map_size[1]).max()) + 1

    def regrid(self, maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Sums weights `[n, h, w]` in a regular grid over the original image, `[n, *size]`.

        The weight of a position is distributed evenly over its pixels, so that sums are preserved; weight on padding is
        dropped.
        """
        source, target, share = self._plan(tuple(size))
        flat = maps.reshape(len(maps), -1)
        summed = [np.bincount(target, weights=row[source] * share, minlength=size[0] * size[1]) for row in flat]
        return np.stack(summed).reshape(len(maps), *size)

    def _plan(self, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns and caches the positions, the grid cells and the shares of weight that they receive, for `regrid`."""
        if size not in self._plans:
            cells = self.cells()
            height, width = cells.shape
            rows, columns = np.arange(height) * size[0] // height, np.arange(width) * size[1] // width
            target, count = rows[:, None] * size[1] + columns, size[0] * size[1]
            pairs, pixels = np.unique(cells.reshape(-1) * count + target.reshape(-1), return_counts=True)
            source, target = np.divmod(pairs, count)
            share = pixels / np.bincount(cells.reshape(-1), minlength=self.map_size[0] * self.map_size[1])[source]
            self._plans[size] = source, target, share
        return self._plans[size]
