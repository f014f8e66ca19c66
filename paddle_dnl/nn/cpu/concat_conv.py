# SPDX-License-Identifier: Apache-2.0
"""Convolution of a channel concatenation that is never materialised."""

from collections.abc import Iterable, Iterator

from paddle_dnl.nn.cpu.row_strips import Geometry, conv2d, eager_on_cpu, is_watched
from paddle_dnl.nn.layers import ConvBNReLU

import paddle


class ConcatConvBNReLU(ConvBNReLU):
    """`ConvBNReLU` of several maps `[B, C_i, H, W]`, as if they were concatenated along the channels.

    A convolution is linear, so on a CPU each map is convolved with its slice of the weight and the results are added:
    neither the concatenation nor the k * k times larger unfolded copy of it is made. The result is that of the
    concatenation up to rounding. In a static graph, on other devices, and where forward hooks are registered on the
    convolution or the norm, the maps are concatenated.
    """

    def forward(self, maps):
        """`maps`: a list or an iterator; from an iterator each map is computed, used and freed in turn."""
        if eager_on_cpu() and not (is_watched(self._conv) or is_watched(self._batch_norm)):
            # The convolution of a concatenation is the sum of the convolutions of its parts.
            geometry, total = Geometry.of(self._conv), None
            for part, weight in _with_weights(maps, self._conv.weight):
                y = conv2d(part, weight, self._conv.bias if total is None else None, geometry)
                total = y if total is None else total.add_(y)
            return self.finish(total)
        return self.finish(self._conv(paddle.concat(list(maps), axis=1)))


def _with_weights(
    maps: Iterable[paddle.Tensor], weight: paddle.Tensor
) -> Iterator[tuple[paddle.Tensor, paddle.Tensor]]:
    """Each map with its slice of the weight, in turn."""
    if paddle.is_grad_enabled() and not weight.stop_gradient:
        # The maps are kept for the backward pass anyway. The gradient of a split is one concatenation; that of a slice is a
        # tensor of the whole weight's size, mostly zeros.
        maps = list(maps)
        yield from zip(maps, weight.split([part.shape[1] for part in maps], axis=1), strict=True)
        return
    offset = 0
    for part in maps:
        yield part, weight[:, offset : offset + part.shape[1]]
        offset += part.shape[1]
