"""Dynamic convolution of DMNet: every sample and channel has its own kernel, made from the sample itself.

He, Deng and Qiao, "Dynamic Multi-scale Filters for Semantic Segmentation", ICCV 2019; norm placement as in
mmsegmentation and PaddleSeg.
"""

from paddle_dnl.errors import ConfigError
from paddle_dnl.nn.layers import ConvBNReLU, batch_norm, relu_of_fresh
from paddle_dnl.nn.pooling import adaptive_avg_pool
from paddle_dnl.nn.shapes import is_known, size_of

import paddle
import paddle.nn.functional as F
from paddle import nn

IMPLEMENTATIONS = ("auto", "grouped", "batch_free")


# Kernel size from which padding a copy first is faster on a CPU (7x7, 512 x 64 x 128: 0.46 s against 0.60 s).
_PADDED_COPY_FROM = 5

# Maps in one padded copy of the backward pass: 2.4 MB of 64x128.
_MAPS_AT_ONCE = 64


def same_padding(filter_size: int) -> tuple[int, int]:
    """Zeros before and after an axis that keep its length; an even kernel has the extra one in front."""
    return filter_size // 2, (filter_size - 1) // 2


def _depthwise(x: paddle.Tensor, filters: paddle.Tensor, padding) -> paddle.Tensor:
    """One convolution with every map of the batch `[B, C, ...]` as a group of its own, `[1, B * C, ...]`."""
    groups = filters.shape[0] * filters.shape[1]
    grouped = x.reshape([1, groups, size_of(x, 2), size_of(x, 3)])
    return F.conv2d(grouped, filters.reshape([groups, 1, *filters.shape[2:]]), padding=padding, groups=groups)


class _PaddedCopyConv(paddle.autograd.PyLayer):
    """`_grouped` on padded copies that live no longer than their convolution; nothing but the inputs is kept.

    On a CPU a convolution that pads by itself is slow for large kernels, and one on a padded copy keeps the copy until
    the backward pass and makes another for its gradient. Both gradients are depthwise convolutions as well: of the
    map with the gradient as the filters, and of the gradient with the reversed filters. They go some maps at a time,
    since the backward pass is where most is held.
    """

    @staticmethod
    def forward(ctx, x, filters):
        ctx.save_for_backward(x, filters)
        before, after = same_padding(filters.shape[-1])
        return _depthwise(F.pad(x, [before, after, before, after]), filters, 0).reshape(x.shape)

    @staticmethod
    def backward(ctx, gradient):
        x, filters = ctx.saved_tensor()
        before, after = same_padding(filters.shape[-1])
        maps, gradients, kernels = (t.reshape([-1, 1, *t.shape[2:]]) for t in (x, gradient, filters))
        to_filters, to_x = [], paddle.empty(maps.shape, dtype=x.dtype)
        for start in range(0, maps.shape[0], _MAPS_AT_ONCE):
            part = slice(start, start + _MAPS_AT_ONCE)
            padded = F.pad(maps[part], [before, after, before, after])
            to_filters.append(_depthwise(padded, gradients[part], 0))
            padded = F.pad(gradients[part], [after, before, after, before])
            to_x[part] = _depthwise(padded, kernels[part].flip([2, 3]), 0).reshape(maps[part].shape)
        return to_x.reshape(x.shape), paddle.concat(to_filters, axis=1).reshape(filters.shape)


def _grouped(x: paddle.Tensor, filters: paddle.Tensor) -> paddle.Tensor:
    """One grouped convolution, batch and channels together as the groups. The batch must be a known number."""
    batch, channels, k, _ = filters.shape
    # Never on a padded copy in a graph: the ONNX converter fills such padding with garbage.
    if k >= _PADDED_COPY_FROM and paddle.in_dynamic_mode() and paddle.get_device() == "cpu":
        return _PaddedCopyConv.apply(x, filters)
    before, after = same_padding(k)
    padding = k // 2 if before == after else [before, after, before, after]
    return _depthwise(x, filters, padding).reshape([batch, channels, size_of(x, 2), size_of(x, 3)])


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
    return _grouped(x, filters) if implementation == "grouped" else _batch_free(x, filters)


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
        y = relu_of_fresh(self.norm(y))
        return y if self.fusion_conv is None else self.fusion_conv(y)
