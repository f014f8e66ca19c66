# SPDX-License-Identifier: Apache-2.0
"""Convolution in parts: bounds the working memory of Paddle's CPU convolution, forward and backward.

That convolution unfolds its input into k * k copies (im2col): 2.4 GB for the first convolution of DNLNet's head on a
1024x2048 image. A strip of output rows needs the unfolded copy of its own input rows only; the result is the same up to the
rounding of the matrix product. Where a strip's copy fits into the cache, strips are faster, too. 3x3 convolutions that would take
strips are computed by Winograd's algorithm (`paddle_dnl.nn.cpu.winograd`) instead, in about half the time.
"""

from typing import NamedTuple

from paddle_dnl.nn.cpu import winograd

import paddle
import paddle.nn.functional as F
from paddle import nn
from paddle.autograd import PyLayer
from paddle.jit.sot.psdb import in_sot

# Largest unfolded copy of one strip. A training step of DNLNet-R50 at 512x1024 on 2 cores with 32 MiB of cache: 25 s and
# 3.7 GB with 32 MiB, 30 s with 16 (the weights are read again for each strip), 28 s and 3.9 GB with 64 for weights.
UNFOLDED_LIMIT = 32 << 20


class Geometry(NamedTuple):
    """Hyperparameters of a 2-D convolution; pairs are (rows, columns)."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int

    @classmethod
    def of(cls, conv: nn.Conv2D) -> "Geometry":
        """Of a layer with symmetric zero padding in pixels."""
        sizes = (conv._kernel_size, conv._stride, conv._padding, conv._dilation)
        pairs = [(size, size) if isinstance(size, int) else tuple(size) for size in sizes]
        return cls(*pairs, conv._groups)

    def extent(self, axis: int) -> int:
        """Pixels from the first to the last that the kernel touches."""
        return self.dilation[axis] * (self.kernel[axis] - 1) + 1

    def out_length(self, x: paddle.Tensor, axis: int) -> int:
        """Rows (axis 0) or columns of the result."""
        return (x.shape[2 + axis] + 2 * self.padding[axis] - self.extent(axis)) // self.stride[axis] + 1

    def transposed(self) -> "Geometry":
        """The convolution that maps output gradients to input gradients; for stride 1."""
        padding = (self.extent(0) - 1 - self.padding[0], self.extent(1) - 1 - self.padding[1])
        # Not `_replace`: to_static of Paddle 2.6 cannot convert it.
        return Geometry(self.kernel, self.stride, padding, self.dilation, self.groups)

    def unfolded_bytes(self, in_channels: int, positions: int) -> int:
        """Bytes that the CPU convolution unfolds for one image; 0 for 1x1 with stride 1, which needs no copy."""
        if self.kernel == (1, 1) and self.stride == (1, 1):
            return 0
        return 4 * self.kernel[0] * self.kernel[1] * in_channels // self.groups * positions


def unfolded_bytes(conv: nn.Conv2D, in_channels: int, out_height: int, out_width: int) -> int:
    """Bytes that the CPU convolution unfolds for one image; 0 for 1x1 with stride 1, which needs no copy."""
    return Geometry.of(conv).unfolded_bytes(in_channels, out_height * out_width)


def largest_copy(conv: nn.Conv2D, in_channels: int) -> int:
    """Bytes that a convolution holds beside input and output where it is computed in parts."""
    if _is_for_winograd(Geometry.of(conv), conv.weight.shape[0], in_channels):
        return winograd.working_bytes(conv.weight.shape[0], in_channels)
    return UNFOLDED_LIMIT


def conv2d(x, weight, bias, geometry: Geometry) -> paddle.Tensor:
    """2-D convolution, in parts where the unfolded copy would exceed `UNFOLDED_LIMIT`; call it where `eager_on_cpu()`.

    Parts are strips, or tiles of Winograd's algorithm, which has fewer multiplications. With gradients, they are implemented for
    stride 1 without groups; other convolutions run as one operation.

    Args:
        x: `[B, C, H, W]`.
        weight: `[K, C / groups, k_h, k_w]`.
        bias: `[K]` or None.
    """
    # A strip that consists of padding only would have no input rows.
    are_whole = min(geometry.transposed().padding) >= 0
    if are_whole and _is_large(x, geometry) and (has_gradients(geometry) or not paddle.is_grad_enabled()):
        run = _StripedConv2D.apply if paddle.is_grad_enabled() else _forward
        return run(x, weight, bias, geometry)
    return F.conv2d(x, weight, bias, geometry.stride, geometry.padding, geometry.dilation, geometry.groups)


class Conv2D(nn.Conv2D):
    """`nn.Conv2D` that bounds its working memory where it runs eagerly on a CPU, see `conv2d`; elsewhere it is Paddle's layer.

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


def eager_on_cpu() -> bool:
    """Whether operations run eagerly on a CPU, where convolutions unfold their input."""
    # While `to_static` without `full_graph` traces a model, `in_dynamic_mode` is true.
    return paddle.in_dynamic_mode() and not in_sot() and paddle.get_device() == "cpu"


def is_watched(layer: nn.Layer) -> bool:
    """Whether forward hooks are registered on a layer."""
    return bool(layer._forward_pre_hooks or layer._forward_post_hooks)


def has_gradients(geometry: Geometry) -> bool:
    """Whether `input_gradient` and `weight_gradient` support this convolution."""
    return geometry.stride == (1, 1) and geometry.groups == 1 and min(geometry.transposed().padding) >= 0


def _rows(x, geometry: Geometry) -> int:
    """Output rows per strip."""
    per_row = geometry.unfolded_bytes(x.shape[1], geometry.out_length(x, 1))
    return max(1, UNFOLDED_LIMIT // per_row) if per_row else geometry.out_length(x, 0)


def _strips(x, geometry: Geometry):
    """(top, bottom) output rows of each strip."""
    rows, height = _rows(x, geometry), geometry.out_length(x, 0)
    return [(top, min(top + rows, height)) for top in range(0, height, rows)]


def _is_large(x, geometry: Geometry) -> bool:
    """Whether the unfolded copy would exceed `UNFOLDED_LIMIT`."""
    return _rows(x, geometry) < geometry.out_length(x, 0)


def _window(x, geometry: Geometry, top: int, bottom: int):
    """Input rows for output rows `top` to `bottom`, and the numbers of zero rows above and below them."""
    stride, padding = geometry.stride[0], geometry.padding[0]
    start, stop = top * stride - padding, (bottom - 1) * stride - padding + geometry.extent(0)
    rows = x if start <= 0 and stop >= x.shape[2] else x[:, :, max(start, 0) : min(stop, x.shape[2])]
    return rows, max(-start, 0), max(stop - x.shape[2], 0)


def _is_for_winograd(geometry: Geometry, out_channels: int, in_channels: int) -> bool:
    """Whether Winograd's algorithm computes a convolution, and faster than strips do."""
    dilation = geometry.dilation
    if dilation[0] != dilation[1] or geometry != Geometry((3, 3), (1, 1), dilation, dilation, 1):
        return False
    return winograd.is_faster(out_channels, in_channels)


def _takes_winograd(x, weight, geometry: Geometry) -> bool:
    """Whether a convolution, or its gradient from `x`, takes Winograd's algorithm; otherwise it takes strips."""
    # `eager_on_cpu` asks for the chosen device; a tensor may have been moved to another.
    fits = x.dtype == paddle.float32 and x.place.is_cpu_place()
    return fits and _is_large(x, geometry) and _is_for_winograd(geometry, *weight.shape[:2])


def _forward(x, weight, bias, geometry: Geometry) -> paddle.Tensor:
    """The fastest way for a convolution that takes strips."""
    if _takes_winograd(x, weight, geometry):
        y = winograd.convolve(x, weight, geometry.dilation[0])
        return y if bias is None else y.add_(bias.reshape([1, -1, 1, 1]))
    return _in_strips(x, weight, bias, geometry)


def _in_strips(x, weight, bias, geometry: Geometry) -> paddle.Tensor:
    parts = []
    for top, bottom in _strips(x, geometry):
        rows, above, below = _window(x, geometry, top, bottom)
        side = geometry.padding[1]
        # Four numbers make Paddle copy the map to pad it.
        around = [above, side] if above == below else [above, below, side, side]
        parts.append(F.conv2d(rows, weight, bias, geometry.stride, around, geometry.dilation, geometry.groups))
    return parts[0] if len(parts) == 1 else paddle.concat(parts, axis=2)


class _StripedConv2D(PyLayer):
    """Convolution of stride 1 without groups, forward and backward in strips."""

    @staticmethod
    def forward(ctx, x, weight, bias, geometry):
        ctx.save_for_backward(x, weight)
        ctx.geometry = geometry
        ctx.wanted = [not tensor.stop_gradient for tensor in (x, weight, bias) if tensor is not None]
        return _forward(x, weight, bias, geometry)

    @staticmethod
    def backward(ctx, grad):
        x, weight = ctx.saved_tensor()
        with paddle.no_grad():
            makers = (
                lambda: input_gradient(weight, grad, ctx.geometry),
                lambda: weight_gradient(x, weight, grad, ctx.geometry),
                lambda: grad.sum(axis=[0, 2, 3]),
            )
            # Paddle insists on None for an input that does not learn.
            return tuple(make() if wanted else None for make, wanted in zip(makers, ctx.wanted, strict=False))


def input_gradient(weight, grad, geometry: Geometry):
    """Gradient of the input `[B, C, H, W]` from that of the output, for a geometry with `has_gradients`.

    A convolution of the output gradient with the rotated kernel, which unfolds the output's channels: often fewer.
    """
    if _takes_winograd(grad, weight, geometry):
        return winograd.convolve(grad, weight, geometry.dilation[0], transposed=True)
    turned = weight.flip([2, 3]).transpose([1, 0, 2, 3])
    return _in_strips(grad, turned, None, geometry.transposed())


def weight_gradient(x, weight, grad, geometry: Geometry):
    """Gradient of the weights from that of the output, for a geometry with `has_gradients`.

    The sum over images and strips of output gradient times unfolded input.
    """
    if _takes_winograd(x, weight, geometry):
        return winograd.weight_gradient(x, grad, geometry.dilation[0])
    out_channels = grad.shape[1]
    total = paddle.zeros([out_channels, weight.size // out_channels], weight.dtype)
    for top, bottom in _strips(x, geometry):
        rows, above, below = _window(x, geometry, top, bottom)
        side = geometry.padding[1]
        for image in range(x.shape[0]):
            own, around = rows[image : image + 1], [above, side, below, side]
            # `[1, C, H, W]` to `[C * k * k, positions]`, for 1x1 as a view.
            if geometry.kernel == (1, 1) and not any(around):
                unfolded = own.reshape([own.shape[1], -1])
            else:
                unfolded = F.unfold(own, geometry.kernel, geometry.stride, around, geometry.dilation)[0]
            columns = grad[image, :, top:bottom].reshape([out_channels, -1])
            total.add_(paddle.matmul(columns, unfolded, transpose_y=True))
    return total.reshape(weight.shape)
