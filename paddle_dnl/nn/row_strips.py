"""Convolutions whose working memory is bounded, for evaluation on a CPU.

Paddle's CPU convolution unfolds its input into k * k copies: 2.4 GB for the first convolution of DNLNet's head on a
1024x2048 image. A convolution of a strip of rows needs the unfolded copy of that strip alone, and its numbers are the same.
"""

import paddle
import paddle.nn.functional as F
from paddle import nn

# Most that one unfolded copy may take; large enough that the matrix products stay as fast as on the whole map.
UNFOLDED_LIMIT = 256 << 20


def unfolded_bytes(conv: nn.Conv2D, in_channels: int, out_height: int, out_width: int) -> int:
    """Bytes that the CPU convolution unfolds for one image; 0 for 1x1 with stride 1, which needs no copy."""
    height, width = conv._kernel_size
    if (height, width) == (1, 1) and set(_pair(conv._stride)) == {1}:
        return 0
    return 4 * height * width * in_channels // conv._groups * out_height * out_width


def conv2d(x: paddle.Tensor, conv: nn.Conv2D) -> paddle.Tensor:
    """`conv(x)`, in strips of rows where the unfolded copy would be larger than `UNFOLDED_LIMIT`.

    Strips are for a CPU without gradients (with them every strip would be kept); elsewhere this is `conv(x)`.

    Args:
        x: `[B, C, H, W]`.
        conv: symmetric zero padding, given in pixels.
    """
    return conv2d_with(x, conv, conv.weight, conv.bias) if _in_strips(x, conv) else conv(x)


def conv2d_with(x, conv: nn.Conv2D, weight, bias) -> paddle.Tensor:
    """As `conv2d` on a CPU without gradients, with other weights in the place of the layer's own."""
    rows = _rows(x, conv)
    height = _out_length(x, conv, 0)
    parts = [_strip(x, conv, weight, bias, top, min(top + rows, height)) for top in range(0, height, rows)]
    return parts[0] if len(parts) == 1 else paddle.concat(parts, axis=2)


def evaluates_on_cpu() -> bool:
    """Whether a convolution unfolds its input and nothing of it is kept: here working piece by piece saves memory."""
    return paddle.in_dynamic_mode() and not paddle.is_grad_enabled() and paddle.get_device() == "cpu"


def _in_strips(x, conv) -> bool:
    return evaluates_on_cpu() and _rows(x, conv) < _out_length(x, conv, 0)


def _pair(value) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


def _geometry(conv, axis: int) -> tuple[int, int, int, int]:
    """Stride, zeros on each side, dilation and extent of the kernel along an axis (0: rows)."""
    dilation = _pair(conv._dilation)[axis]
    extent = dilation * (conv._kernel_size[axis] - 1) + 1
    return _pair(conv._stride)[axis], _pair(conv._padding)[axis], dilation, extent


def _out_length(x, conv, axis: int) -> int:
    stride, padding, _, extent = _geometry(conv, axis)
    return (x.shape[2 + axis] + 2 * padding - extent) // stride + 1


def _rows(x, conv) -> int:
    """Rows of the result that one strip makes."""
    per_row = unfolded_bytes(conv, x.shape[1], 1, _out_length(x, conv, 1))
    return max(1, UNFOLDED_LIMIT // per_row) if per_row else _out_length(x, conv, 0)


def _strip(x, conv, weight, bias, top: int, bottom: int) -> paddle.Tensor:
    """Rows `top` to `bottom` of the result."""
    stride, padding, _, extent = _geometry(conv, 0)
    start, stop = top * stride - padding, (bottom - 1) * stride - padding + extent
    rows = x if start <= 0 and stop >= x.shape[2] else x[:, :, max(start, 0) : min(stop, x.shape[2])]
    side = _pair(conv._padding)[1]
    around = [max(-start, 0), max(stop - x.shape[2], 0), side, side]
    if around[0] == around[1]:
        around = [around[0], side]  # four numbers make Paddle copy the map to pad it
    return F.conv2d(rows, weight, bias, conv._stride, around, conv._dilation, conv._groups)
