"""Convolution of a channel concatenation without making the concatenation."""

from collections.abc import Iterable, Iterator

from paddle_dnl.nn.cpu.row_strips import Geometry, conv2d_with, is_watched, unfolds
from paddle_dnl.nn.layers import ConvBN

import paddle
from paddle import nn


def _with_weights(
    parts: Iterable[paddle.Tensor], weight: paddle.Tensor
) -> Iterator[tuple[paddle.Tensor, paddle.Tensor]]:
    """Each part with its slice of the weight, in turn."""
    if paddle.is_grad_enabled() and not weight.stop_gradient:
        # Parts are kept to learn from, and a split's gradient is one concatenation; a slice's, zeros for all the rest.
        parts = list(parts)
        yield from zip(parts, weight.split([part.shape[1] for part in parts], axis=1), strict=True)
        return
    offset = 0
    for part in parts:
        yield part, weight[:, offset : offset + part.shape[1]]
        offset += part.shape[1]


def _convolve_in_turn(parts: Iterable[paddle.Tensor], conv: nn.Conv2D) -> paddle.Tensor:
    """Each part, its weights and its unfolded copy are gone before the next one is made."""
    geometry, total = Geometry.of(conv), None
    for part, weight in _with_weights(parts, conv.weight):
        y = conv2d_with(part, weight, conv.bias if total is None else None, geometry)
        total = y if total is None else total.add_(y)
    return total


def of_concat(parts: Iterable[paddle.Tensor], layer: ConvBN) -> paddle.Tensor:
    """`layer(paddle.concat(parts, axis=1))`, up to the rounding of the convolution's sum over channels.

    On a CPU the concatenation, and the k * k times larger unfolded copy that the convolution would make of it, never
    exist: a convolution is linear, so the parts are convolved one after another with their slices of the weight.
    Elsewhere, and where hooks wait for the layer, it is one call with the concatenation.

    Args:
        parts: maps `[B, C_i, H, W]`; an iterator lets every part be computed, used and freed in turn.
        layer: no groups, sum of C_i input channels.
    """
    if unfolds() and not any(map(is_watched, layer.sublayers(include_self=True))):
        return layer.finish(_convolve_in_turn(parts, layer._conv))
    return layer(paddle.concat(list(parts), axis=1))
