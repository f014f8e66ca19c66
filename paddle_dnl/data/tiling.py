# SPDX-License-Identifier: Apache-2.0
"""Overlapping tiles of a picture, and blending of their scores into one map, with memory for one row of tiles."""

from collections.abc import Iterator

import numpy as np

BLENDS = ("cosine", "linear", "uniform")


def tile_starts(length: int, tile: int, stride: int) -> list[int]:
    """Start positions of the tiles along an axis; the last tile ends with the picture.

    Args:
        length: length of the picture in pixels.
        tile: length of a tile. A shorter picture has one tile, which extends beyond it.
        stride: distance of tiles, 1 to `tile`.
    """
    if length <= tile:
        return [0]
    return [*range(0, length - tile, stride), length - tile]


def blend_weights(length: int, overlap: int, blend: str, first: bool = False, last: bool = False) -> np.ndarray:
    """Blending weight of each pixel of a tile along an axis, `[length]` float32 in [0, 1].

    In the outer quarter of an overlap, where a tile has least context, the weight is 0. In the middle half `cosine` and
    `linear` are ramps, which add up to 1 for two neighbours, and `uniform` is 1 (an average). At a border of the picture all
    weights are 1.

    Args:
        length: length of the tile in pixels.
        overlap: number of pixels shared with a neighbour.
        blend: one of `BLENDS`.
        first, last: the tile is the first or the last one of the picture.
    """
    margin = overlap // 4
    steps = overlap - 2 * margin
    ramp = (np.arange(steps, dtype=np.float32) + 0.5) / max(steps, 1)
    if blend == "cosine":
        ramp = (1 - np.cos(np.pi * ramp)) / 2
    elif blend == "uniform":
        ramp = np.ones_like(ramp)
    rise = np.concatenate([np.zeros(margin, np.float32), ramp, np.ones(length - margin - steps, np.float32)])
    weights = np.ones(length, np.float32) if first else rise
    return weights if last else np.minimum(weights, rise[::-1])


class TileGrid:
    """The positions of the tiles of a picture, and the blending of their results.

    Args:
        size: height and width of the picture.
        tile: height and width of a tile.
        overlap: rows and columns that neighbouring tiles share, at most half a tile.
        blend: one of `BLENDS`.

    Raises:
        ValueError: an overlap below 0 or above half a tile, or an unknown blend.
    """

    def __init__(self, size: tuple[int, int], tile: tuple[int, int], overlap: tuple[int, int], blend: str = "cosine"):
        if any(not 0 <= o <= t // 2 for o, t in zip(overlap, tile, strict=True)):
            raise ValueError(f"the overlap must be from 0 to half of the tile {tile[1]}x{tile[0]}, got {overlap}")
        if blend not in BLENDS:
            raise ValueError(f"blend must be one of {', '.join(BLENDS)}; got {blend!r}")
        self.size, self.tile = size, tile
        self.tops, self.lefts = (
            tile_starts(length, t, t - o) for length, t, o in zip(size, tile, overlap, strict=True)
        )
        self._rows, self._columns = (
            {start: blend_weights(t, o, blend, start == 0, start == starts[-1]) for start in starts}
            for starts, t, o in zip((self.tops, self.lefts), tile, overlap, strict=True)
        )

    def __len__(self) -> int:
        return len(self.tops) * len(self.lefts)

    def row(self, top: int, read) -> Iterator[np.ndarray]:
        """The tiles `[tile_h, tile_w, ...]` of one row, from left to right.

        Args:
            top: one of `tops`.
            read: function (top, bottom) -> these rows of the picture, `[rows, width, ...]`.

        A picture that is smaller than a tile is padded by repeating its edge.
        """
        band = read(top, min(top + self.tile[0], self.size[0]))
        for left in self.lefts:
            part = band[:, left : left + self.tile[1]]
            missing = [(0, t - n) for t, n in zip(self.tile, part.shape[:2], strict=True)]
            if any(after for _, after in missing):
                part = np.pad(part, [*missing, *[(0, 0)] * (part.ndim - 2)], mode="edge")
            yield part

    def blend(self, scores_of_row) -> Iterator[np.ndarray]:
        """Yields the blended scores `[K, rows, width]` in strips from top to bottom.

        Args:
            scores_of_row: function top -> the scores `[K, tile_h, tile_w]` of the tiles of this row, from left to right.
        """
        for total, weight in self._strips(scores_of_row):
            yield total / weight

    def labels(self, results_of_row) -> Iterator[np.ndarray]:
        """Yields the classes `[rows, width]` in strips from top to bottom; uint8, or uint16 for more than 256 classes.

        Args:
            results_of_row: function top -> the results of the tiles of this row, from left to right: scores
                `[K, tile_h, tile_w]`, which are blended, or classes `[tile_h, tile_w]`; then each pixel has the class from
                the tile in which its weight is largest.
        """
        for total, _ in self._strips(results_of_row):
            # Dividing by the weights would not change which score is largest.
            found = total if total.dtype != np.float32 else total.argmax(0)
            yield found.astype(np.uint16 if found.max() > 255 else np.uint8)

    def _strips(self, results_of_row) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields the weighted sums of the scores (or the chosen classes) and the weights, for the rows that are complete.

        The memory is that of one tile's result and of the sums of one row of tiles. The yielded arrays are overwritten later.
        """
        height, width = self.size
        total = weight = None
        for top, below in zip(self.tops, [*self.tops[1:], height], strict=True):
            rows = min(self.tile[0], height - top)
            for left, result in zip(self.lefts, results_of_row(top), strict=True):
                if total is None:
                    dtype = np.float32 if result.ndim == 3 else np.int32
                    total = np.zeros((*result.shape[:-2], self.tile[0], width), dtype)
                    weight = np.zeros((self.tile[0], width), np.float32)
                area = (..., slice(0, rows), slice(left, left + min(self.tile[1], width - left)))
                columns = area[2].stop - left
                part = self._rows[top][:rows, None] * self._columns[left][:columns]
                if result.ndim == 3:
                    total[area] += result[:, :rows, :columns] * part
                    weight[area] += part
                else:
                    better = part > weight[area]
                    total[area][better] = result[:rows, :columns][better]
                    weight[area][better] = part[better]
            done = below - top
            yield total[..., :done, :], weight[:done]
            # Rows that overlap the next row of tiles move up; the others are reset.
            kept = self.tile[0] - done
            if kept > 0:
                total[..., :kept, :], weight[:kept] = total[..., done:, :].copy(), weight[done:].copy()
            total[..., max(kept, 0) :, :], weight[max(kept, 0) :] = 0, 0
