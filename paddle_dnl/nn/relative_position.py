# SPDX-License-Identifier: Apache-2.0
"""Relative position term of DGMN2, with the transposition and the stretching of the published networks."""

from paddle_dnl.nn.shapes import is_known, size_of
from paddle_dnl.nn.torch_init import normal_parameter

import paddle
from paddle import nn

_WINDOW = 9


def _range(length) -> paddle.Tensor:
    return paddle.arange(0, length, 1, dtype="int64")


def stretch(x: paddle.Tensor, axis: int, length) -> paddle.Tensor:
    """Linear interpolation of one axis to a new length: half-pixel centres, edges repeated, no antialiasing.

    The values of a bilinear resize without align_corners, but for every rank and with weights of the precision
    of `x`. (The resize of PaddlePaddle has float32 weights even in float64.)
    """
    old = size_of(x, axis)
    if is_known(old) and is_known(length):
        if old == length:
            return x
        ratio = old / length
    else:
        old = paddle.to_tensor(old, "int64") if is_known(old) else old.astype("int64")
        ratio = old.astype(x.dtype) / (length if is_known(length) else length.astype(x.dtype))
    last = old - 1
    position = (_range(length).astype(x.dtype) + 0.5) * ratio - 0.5
    position = position.clip(min=0.0)
    low = position.floor().astype("int64")
    low = low.clip(max=last) if is_known(last) else paddle.minimum(low, last)
    high = (low + 1).clip(max=last) if is_known(last) else paddle.minimum(low + 1, last)
    shape = [1] * len(x.shape)
    shape[axis] = -1
    weight = (position - low.astype(x.dtype)).reshape(shape)
    return paddle.index_select(x, low, axis) * (1.0 - weight) + paddle.index_select(x, high, axis) * weight


def _windows(table: paddle.Tensor, length) -> paddle.Tensor:
    """The nine table rows of each position: result[p, s] = row (length - 1 - p + s) of the stretched table.

    Args:
        table: `[rows, d]`; it is stretched to `length + 8` rows first.
        length: number of positions along the axis.

    Returns:
        `[1, length, 9, d]`.
    """
    table = stretch(table, 0, length + _WINDOW - 1)
    first = (length - 1) - _range(length)
    rows = first.unsqueeze(1) + _range(_WINDOW).unsqueeze(0)
    return paddle.index_select(table, rows.flatten(), 0).reshape([1, -1, _WINDOW, table.shape[1]])


class RelativePosition(nn.Layer):
    """Logits that depend on the query and on the position, one for each of the nine samples.

    The samples are treated as a line of nine, for rows and columns alike. The term of the rows is computed on the
    transposed map and never transposed back: for a square map the pixel (i, j) gets the term of (j, i), else the W x H
    map is resized to H x W. The ImageNet training had the same quirk, so it belongs to the weights.

    Args:
        rows: height and width of the map in ImageNet training; the tables hold 8 rows more.
        head_dim: d.
    """

    def __init__(self, rows: tuple[int, int], head_dim: int):
        super().__init__()
        std = head_dim**-0.5
        self.rel_height = normal_parameter(self, [rows[0] + _WINDOW - 1, head_dim], std)
        self.rel_width = normal_parameter(self, [rows[1] + _WINDOW - 1, head_dim], std)

    def forward(self, q):
        """Queries `[B, d, H, W]`, unscaled -> logits `[B, 9, H, W]`."""
        height, width = size_of(q, 2), size_of(q, 3)
        by_column = paddle.matmul(_windows(self.rel_width, width), q.transpose([0, 3, 1, 2]))  # [B, W, 9, H]
        by_row = paddle.matmul(_windows(self.rel_height, height), q.transpose([0, 2, 1, 3]))  # [B, H, 9, W]
        transposed = by_row.transpose([0, 2, 3, 1])  # [B, 9, W, H]
        transposed = stretch(stretch(transposed, 2, height), 3, width)
        return by_column.transpose([0, 2, 3, 1]) + transposed
