# SPDX-License-Identifier: Apache-2.0
"""Depthwise convolution with kernels that differ per sample, in the way that is fastest where it runs."""

from paddle_dnl.nn.shapes import size_of

import paddle
import paddle.nn.functional as F

# Kernel size from which padding a copy first is faster on a CPU (7x7, 512 x 64 x 128: 0.46 s against 0.60 s).
_PADDED_COPY_FROM = 5

# Maps per padded copy in the backward pass: 2.4 MB of 64x128.
_MAPS_AT_ONCE = 64


def same_padding(filter_size: int) -> tuple[int, int]:
    """Zeros before and after an axis that keep its length; an even kernel has the extra one in front."""
    return filter_size // 2, (filter_size - 1) // 2


def depthwise_conv(x: paddle.Tensor, filters: paddle.Tensor) -> paddle.Tensor:
    """Correlates every map of `x` with its own filter, zeros outside, same size: one grouped convolution.

    Args:
        x: `[B, C, H, W]`; B must be known.
        filters: `[B, C, k, k]`.

    Returns:
        `[B, C, H, W]`.
    """
    batch, channels, k, _ = filters.shape
    # A static graph never pads a copy: the ONNX converter fills such padding with uninitialised values.
    if k >= _PADDED_COPY_FROM and paddle.in_dynamic_mode() and paddle.get_device() == "cpu":
        return _PaddedCopyConv.apply(x, filters)
    before, after = same_padding(k)
    padding = k // 2 if before == after else [before, after, before, after]
    return _grouped(x, filters, padding).reshape([batch, channels, size_of(x, 2), size_of(x, 3)])


def _grouped(x: paddle.Tensor, filters: paddle.Tensor, padding) -> paddle.Tensor:
    """One convolution with every map of the batch `[B, C, ...]` as a group of its own, `[1, B * C, ...]`."""
    groups = filters.shape[0] * filters.shape[1]
    grouped = x.reshape([1, groups, size_of(x, 2), size_of(x, 3)])
    return F.conv2d(grouped, filters.reshape([groups, 1, *filters.shape[2:]]), padding=padding, groups=groups)


class _PaddedCopyConv(paddle.autograd.PyLayer):
    """Depthwise convolution on padded copies that are freed right after it; only the inputs are stored.

    On a CPU a convolution that pads by itself is slow for large kernels, and one on a padded copy stores the copy until
    the backward pass and makes another for its gradient. Both gradients are depthwise convolutions as well: of the map
    with the gradient as filters, and of the gradient with the reversed filters. They take some maps at a time, since
    memory peaks in the backward pass.
    """

    @staticmethod
    def forward(ctx, x, filters):
        ctx.save_for_backward(x, filters)
        before, after = same_padding(filters.shape[-1])
        return _grouped(F.pad(x, [before, after, before, after]), filters, 0).reshape(x.shape)

    @staticmethod
    def backward(ctx, gradient):
        x, filters = ctx.saved_tensor()
        before, after = same_padding(filters.shape[-1])
        maps, gradients, kernels = (t.reshape([-1, 1, *t.shape[2:]]) for t in (x, gradient, filters))
        to_filters, to_x = [], paddle.empty(maps.shape, dtype=x.dtype)
        for start in range(0, maps.shape[0], _MAPS_AT_ONCE):
            part = slice(start, start + _MAPS_AT_ONCE)
            padded = F.pad(maps[part], [before, after, before, after])
            to_filters.append(_grouped(padded, gradients[part], 0))
            padded = F.pad(gradients[part], [after, before, after, before])
            to_x[part] = _grouped(padded, kernels[part].flip([2, 3]), 0).reshape(maps[part].shape)
        return to_x.reshape(x.shape), paddle.concat(to_filters, axis=1).reshape(filters.shape)
