"""Convolution of a channel concatenation without making the concatenation."""

from collections.abc import Iterable

import paddle
import paddle.nn.functional as F
from paddle import nn

# Input channels per convolution on a CPU, whose kernel unfolds its input: 151 MB for 512 channels, 3x3, at 64x128.
_CHANNELS_AT_ONCE = 512


def _pieces(part: paddle.Tensor) -> list[tuple[int, int]]:
    """Channel ranges of one part."""
    channels = part.shape[1]
    return [(i, min(i + _CHANNELS_AT_ONCE, channels)) for i in range(0, channels, _CHANNELS_AT_ONCE)]


def _convolve_in_turn(parts: Iterable[paddle.Tensor], conv: nn.Conv2D) -> paddle.Tensor:
    """Each piece, its weights and its unfolded copy are gone before the next one is made (without gradients)."""
    total, offset = None, 0
    for part in parts:
        for start, end in _pieces(part):
            piece = part if end - start == part.shape[1] else part[:, start:end]
            weight = conv.weight[:, offset : offset + end - start]
            y = F.conv2d(piece, weight, conv.bias if total is None else None, padding=conv._padding)
            total = y if total is None else total.add_(y)
            offset += end - start
    return total


def conv_of_concat(parts: Iterable[paddle.Tensor], conv: nn.Conv2D) -> paddle.Tensor:
    """`conv(paddle.concat(parts, axis=1))`, up to the rounding of the sum over channels.

    On a CPU and without gradients the concatenation, and the k * k times larger unfolded copy that the convolution
    would make of it, never exist: a convolution is linear, so the parts are convolved one after another with their
    slices of the weight. Elsewhere it is one convolution.

    Args:
        parts: maps `[B, C_i, H, W]`; an iterator lets every part be computed, used and freed in turn.
        conv: stride 1, no groups, no dilation, sum of C_i input channels.
    """
    in_turn = paddle.in_dynamic_mode() and not paddle.is_grad_enabled() and paddle.get_device() == "cpu"
    return _convolve_in_turn(parts, conv) if in_turn else conv(paddle.concat(list(parts), axis=1))
