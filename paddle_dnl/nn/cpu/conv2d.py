# SPDX-License-Identifier: Apache-2.0
"""`Conv2D` with bounded working memory on a CPU; everywhere else it is Paddle's layer."""

from paddle_dnl.nn.cpu.row_strips import Geometry, conv2d, eager_on_cpu

import paddle.nn.functional as F
from paddle import nn


class Conv2D(nn.Conv2D):
    """`nn.Conv2D` that works in strips of rows where it runs eagerly on a CPU, see `paddle_dnl.nn.cpu.row_strips`.

    Parameters, their names and the result (up to rounding) are those of `nn.Conv2D`.

    Raises:
        ValueError: padding that is not symmetric zero padding in pixels, or another data format than NCHW.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size, **options):
        super().__init__(in_channels, out_channels, kernel_size, **options)
        if isinstance(self._padding, str) or self._padding_mode != "zeros" or self._data_format != "NCHW":
            raise ValueError("Conv2D: only symmetric zero padding in pixels and data_format NCHW; use paddle.nn.Conv2D")

    def forward(self, x):
        if eager_on_cpu():
            return conv2d(x, self.weight, self.bias, Geometry.of(self))
        # Not super().forward: to_static cannot convert it.
        return F.conv2d(x, self.weight, self.bias, self._stride, self._padding, self._dilation, self._groups)
