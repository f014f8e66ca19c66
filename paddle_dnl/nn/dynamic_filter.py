# SPDX-License-Identifier: Apache-2.0
"""Dynamic convolution of DMNet: every sample and channel has its own kernel, made from the sample itself.

He, Deng and Qiao, "Dynamic Multi-scale Filters for Semantic Segmentation", ICCV 2019; norm placement as in
mmsegmentation and PaddleSeg.
"""

from paddle_dnl.errors import ConfigError
from paddle_dnl.nn.cpu.depthwise import depthwise_conv, same_padding
from paddle_dnl.nn.layers import ConvBNReLU, batch_norm, relu_inplace
from paddle_dnl.nn.pooling import adaptive_avg_pool
from paddle_dnl.nn.shapes import is_known, size_of

import paddle
import paddle.nn.functional as F
from paddle import nn

IMPLEMENTATIONS = ("auto", "grouped", "batch_free")


def _batch_free(x: paddle.Tensor, filters: paddle.Tensor) -> paddle.Tensor:
    """The same sum from operations that need neither the batch nor the map's size in advance.

    With P the padded map, out[i, j] = sum_r (sum_s filter[r, s] P[i + r, j + s]). The k column shifts come from a
    convolution with one-hot kernels, all inner sums from one batched product with a k x k matrix, and the k row shifts
    from slices: k maps are held instead of the k * k of an unfolded map.
    """
    channels, k = filters.shape[1], filters.shape[2]
    before, after = same_padding(k)
    height, width = size_of(x, 2), size_of(x, 3)
    one_hot = paddle.eye(k, dtype=x.dtype).reshape([k, 1, 1, k])
    shifted = F.conv2d(x.reshape([-1, 1, height, width]), one_hot, padding=[before, after, before, after])
    inner = paddle.matmul(filters.reshape([-1, k, k]), shifted.flatten(2))
    inner = inner.reshape([-1, k, height + k - 1, width])
    y = inner[:, 0, :height]
    for r in range(1, k):
        y = y + inner[:, r, r : r + height]
    return y.reshape([-1, channels, height, width])


def dynamic_depthwise_conv(x: paddle.Tensor, filters: paddle.Tensor, implementation: str = "auto"):
    """Correlates each map of `x` with the filter of the same sample and channel, zeros outside, same size.

    Args:
        x: `[B, C, H, W]`.
        filters: `[B, C, k, k]`; k may be even (then one more zero before than after) and larger than the map.
        implementation: `grouped` (one convolution with B * C groups), `batch_free` (for export with a free batch),
            or `auto`: `grouped` wherever the batch is known. Both are the same sum in another order.

    Returns:
        `[B, C, H, W]`.
    """
    if implementation == "auto":
        implementation = "grouped" if is_known(size_of(x, 0)) else "batch_free"
    return depthwise_conv(x, filters) if implementation == "grouped" else _batch_free(x, filters)


class DynamicFilter(nn.Layer):
    """Dynamic convolutional module: pool to k x k, make a filter per sample and channel, apply it.

    Args:
        filter_size: k, at least 1.
        fusion: one more 1x1 convolution with batch norm and ReLU on the result.
        in_channels: channels of the input `[B, in_channels, H, W]`.
        channels: channels of the filters and of the result `[B, channels, H, W]`.
        conv_bias: biases in front of batch norms, as PaddleSeg has them (False: mmsegmentation).
        implementation: see `dynamic_depthwise_conv`.

    Raises:
        ConfigError: a filter size that is no positive integer, or an unknown implementation.
    """

    def __init__(
        self,
        filter_size: int,
        fusion: bool,
        in_channels: int,
        channels: int,
        conv_bias: bool = True,
        implementation: str = "auto",
    ):
        super().__init__()
        if isinstance(filter_size, bool) or not isinstance(filter_size, int) or filter_size < 1:
            raise ConfigError(f"DMNet.filter_sizes: expected positive integers, got {filter_size!r}")
        if implementation not in IMPLEMENTATIONS:
            options = ", ".join(IMPLEMENTATIONS)
            raise ConfigError(f"DMNet.dynamic_conv: {implementation!r} is none of {options}")
        self.filter_size = filter_size
        self.implementation = implementation
        bias = None if conv_bias else False
        self.filter_gen_conv = nn.Conv2D(in_channels, channels, 1)
        self.input_redu_conv = ConvBNReLU(in_channels, channels, 1, bias_attr=bias)
        self.norm = batch_norm(channels)
        self.fusion_conv = ConvBNReLU(channels, channels, 1, bias_attr=bias) if fusion else None

    def filters(self, x):
        """The kernels that are made of `x` `[B, in_channels, H, W]`: `[B, channels, k, k]`."""
        return self.filter_gen_conv(adaptive_avg_pool(x, self.filter_size))

    def forward(self, x):
        y = dynamic_depthwise_conv(self.input_redu_conv(x), self.filters(x), self.implementation)
        y = relu_inplace(self.norm(y))
        return y if self.fusion_conv is None else self.fusion_conv(y)
