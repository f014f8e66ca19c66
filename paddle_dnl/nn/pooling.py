# SPDX-License-Identifier: Apache-2.0
"""Adaptive average pooling as two matrix products.

The windows of adaptive pooling overlap when the map is not divisible by the number of bins. ONNX converters replace
the operation by a pooling with one fixed window, silently wrong there. Averaging along rows and then along columns is
the same linear map, is exact for every size, and exports everywhere.
"""

from paddle_dnl.nn.shapes import is_known, size_of

import numpy as np
import paddle


def _averages(length, bins: int, dtype) -> paddle.Tensor:
    """Matrix `[bins, length]` whose row i averages positions floor(i n / k) to ceil((i + 1) n / k) - 1."""
    if is_known(length):
        bin_index = np.arange(bins)[:, None]
        position = np.arange(length)[None, :]
    else:
        bin_index = paddle.arange(bins, dtype="int64").unsqueeze(1)
        length = length.astype("int64")
        position = paddle.arange(0, length, 1, dtype="int64").unsqueeze(0)
    start = bin_index * length // bins
    end = ((bin_index + 1) * length + bins - 1) // bins
    if is_known(length):
        inside = ((position >= start) & (position < end)).astype("float64")
        return paddle.to_tensor(inside / inside.sum(1, keepdims=True)).astype(dtype)
    inside = paddle.logical_and(position >= start, position < end).astype(dtype)
    return inside / inside.sum(axis=1, keepdim=True)


def adaptive_avg_pool(x: paddle.Tensor, bins: int) -> paddle.Tensor:
    """Averages `x [B, C, H, W]` over `bins x bins` windows that cover the map; result `[B, C, bins, bins]`.

    Equal to `nn.AdaptiveAvgPool2D(bins)`, also for maps smaller than the number of bins.
    """
    if bins == 1:
        return x.mean(axis=[2, 3], keepdim=True)
    rows = _averages(size_of(x, 2), bins, x.dtype)
    columns = _averages(size_of(x, 3), bins, x.dtype)
    return paddle.matmul(rows, paddle.matmul(x, columns, transpose_y=True))
