"""Convolution of a channel concatenation without making the concatenation."""

from collections.abc import Iterable

from paddle_dnl.nn.layers import ConvBN
from paddle_dnl.nn.row_strips import Geometry, conv2d_with, is_watched, unfolds

import paddle
from paddle import nn


def _convolve_in_turn(parts: Iterable[paddle.Tensor], conv: nn.Conv2D) -> paddle.Tensor:
    """Each part, its weights and its unfolded copy are gone before the next one is made."""
    geometry, total, offset = Geometry.of(conv), None, 0
    for part in parts:
        weight = conv.weight[:, offset : offset + part.shape[1]]
        bias = conv.bias if total is None else None
        total = _add(total, conv2d_with(part, weight, bias, geometry))
        offset += part.shape[1]
    return total


def _convolve_to_learn(parts: list[paddle.Tensor], conv: nn.Conv2D) -> paddle.Tensor:
    """The weights are split once: the gradient of a split is one concatenation, that of each slice a whole map of zeros."""
    geometry, total = Geometry.of(conv), None
    for part, weight in zip(parts, conv.weight.split([part.shape[1] for part in parts], axis=1), strict=True):
        total = _add(total, conv2d_with(part, weight, conv.bias if total is None else None, geometry))
    return total


def _add(total, y):
    return y if total is None else total.add_(y)


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
        learns = paddle.is_grad_enabled() and not layer._conv.weight.stop_gradient
        y = _convolve_to_learn(list(parts), layer._conv) if learns else _convolve_in_turn(parts, layer._conv)
        return layer.finish(y)
    return layer(paddle.concat(list(parts), axis=1))
