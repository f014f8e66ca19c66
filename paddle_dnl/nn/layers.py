# SPDX-License-Identifier: Apache-2.0
"""Convolution with batch normalisation; attributes (`_conv`, `_batch_norm`) as in PaddleSeg's checkpoints."""

from collections.abc import Iterable

from paddle_dnl.nn.cpu.row_strips import Conv2D
from paddle_dnl.nn.torch_init import init_conv_like_torch, init_conv_module, init_normal

import paddle
import paddle.nn.functional as F
from paddle import nn


def batch_norm(num_features: int) -> nn.Layer:
    """Batch normalisation: synchronised over cards on a GPU, plain on a CPU, which has no such kernel."""
    if paddle.get_device().startswith("gpu"):
        return nn.SyncBatchNorm(num_features)
    return nn.BatchNorm2D(num_features)


def relu_inplace(x: paddle.Tensor) -> paddle.Tensor:
    """In-place ReLU; only for tensors with no other reference whose producer does not need them in its backward pass.

    On a CPU new memory costs more than the comparison: 41 against 8 ms for 2048 x 64 x 128.
    """
    return F.relu_(x) if paddle.in_dynamic_mode() else F.relu(x)


def add_inplace(x: paddle.Tensor, y: paddle.Tensor) -> paddle.Tensor:
    """`x + y` in the memory of `x`; the same conditions as for `relu_inplace`."""
    return x.add_(y) if paddle.in_dynamic_mode() else x + y


class ConvBN(nn.Layer):
    """Convolution (padding `same` for odd kernels and stride 1) and batch normalisation, `[B, C, H, W]`."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, padding=None, **kwargs):
        super().__init__()
        if padding is None:
            padding = kernel_size // 2 * kwargs.get("dilation", 1)
        self._conv = Conv2D(in_channels, out_channels, kernel_size, padding=padding, **kwargs)
        self._batch_norm = batch_norm(out_channels)

    def forward(self, x):
        return self.finish(self._conv(x))

    def finish(self, y):
        """What follows the convolution."""
        return self._batch_norm(y)


class ConvBNReLU(ConvBN):
    """`ConvBN` followed by a ReLU."""

    def finish(self, y):
        """What follows the convolution."""
        return relu_inplace(self._batch_norm(y))


def init_head(layers: Iterable[nn.Layer], init: str) -> None:
    """Initial values of a segmentation head published in PyTorch; batch norms keep 1 and 0, which both frameworks use.

    Args:
        layers: convolutions with batch norm, classifiers, and containers of them.
        init: `mmseg`: convolutions with batch norm as OpenMMLab's `ConvModule`, the others (classifiers) normal with
            standard deviation 0.01 and zero bias. `torch`: PyTorch's defaults for all.
    """
    found = [sublayer for layer in layers for sublayer in layer.sublayers(include_self=True)]
    normalised = {id(layer._conv) for layer in found if isinstance(layer, ConvBN)}
    for conv in (layer for layer in found if isinstance(layer, nn.Conv2D)):
        if init == "torch":
            init_conv_like_torch(conv)
        elif id(conv) in normalised:
            init_conv_module(conv)
        else:
            init_normal(conv, 0.01)
