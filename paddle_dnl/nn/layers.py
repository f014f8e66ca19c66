"""Convolution with batch normalisation; attributes (`_conv`, `_batch_norm`) as in PaddleSeg's checkpoints."""

import paddle
import paddle.nn.functional as F
from paddle import nn


def batch_norm(num_features: int) -> nn.Layer:
    """Batch normalisation: synchronised over cards on a GPU, plain on a CPU, which has no such kernel."""
    if paddle.get_device().startswith("gpu"):
        return nn.SyncBatchNorm(num_features)
    return nn.BatchNorm2D(num_features)


class ConvBN(nn.Layer):
    """Convolution (padding `same` for odd kernels and stride 1) and batch normalisation, `[B, C, H, W]`."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, padding=None, **kwargs):
        super().__init__()
        if padding is None:
            padding = kernel_size // 2 * kwargs.get("dilation", 1)
        self._conv = nn.Conv2D(in_channels, out_channels, kernel_size, padding=padding, **kwargs)
        self._batch_norm = batch_norm(out_channels)

    def forward(self, x):
        return self._batch_norm(self._conv(x))


class ConvBNReLU(ConvBN):
    """`ConvBN` followed by a ReLU."""

    def forward(self, x):
        # Not through super(): Paddle 2.6's to_static cannot convert it.
        return F.relu(self._batch_norm(self._conv(x)))
