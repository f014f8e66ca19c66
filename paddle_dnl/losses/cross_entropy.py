# SPDX-License-Identifier: Apache-2.0
"""Cross entropy with PaddleSeg's arguments and values."""

from collections.abc import Sequence

from paddle_dnl.errors import ConfigError
from paddle_dnl.registry import LOSSES

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn

# PaddleSeg's guard against division by zero; it also makes the loss of a batch without any valid pixel 0.
_EPS = 1e-8


def pixel_losses(logits: paddle.Tensor, label: paddle.Tensor, ignore_index: int) -> paddle.Tensor:
    """Negative log-likelihood of each pixel's label, `[B, H, W]` in float32; 0 where the label is ignored."""
    losses = F.cross_entropy(
        logits.astype("float32"), label.unsqueeze(1), ignore_index=ignore_index, axis=1, reduction="none"
    )
    return losses.reshape(label.shape)


def class_weights(weight, label: paddle.Tensor, valid: paddle.Tensor, num_classes: int) -> paddle.Tensor:
    """The weight of each pixel's class, `[B, H, W]`; that of class 0 where `valid` is 0.

    Raises:
        ConfigError: not one weight per class.
    """
    if len(weight) != num_classes:
        raise ConfigError(f"loss: `weight` has {len(weight)} class weights for {num_classes} classes")
    inside = label * valid.astype(label.dtype)
    return paddle.gather(weight, inside.flatten()).reshape(label.shape)


@LOSSES.add_component
class CrossEntropyLoss(nn.Layer):
    """Mean cross entropy over the labelled pixels.

    Args:
        weight: one weight per class; the result is then the weighted mean.
        ignore_index: label of ignored pixels.
        top_k_percent_pixels: share of the pixels with the largest losses that are averaged, in (0, 1]; 1: all pixels.
        avg_non_ignore: True: divide by the number of labelled pixels; False: by the number of all pixels, as
            mmsegmentation 0.x does. With `weight` the divisor is the sum of the weights of the labelled pixels in both cases.
        data_format: only NCHW.

    Raises:
        ValueError: `top_k_percent_pixels` outside (0, 1], or another data format.
        ConfigError: at the first call, not one weight per class.
    """

    def __init__(
        self,
        weight: Sequence[float] | None = None,
        ignore_index: int = 255,
        top_k_percent_pixels: float = 1.0,
        avg_non_ignore: bool = True,
        data_format: str = "NCHW",
    ):
        super().__init__()
        if data_format != "NCHW":
            raise ValueError(f"data_format must be NCHW, got {data_format!r}")
        if not 0 < top_k_percent_pixels <= 1:
            raise ValueError(f"top_k_percent_pixels must be in (0, 1], got {top_k_percent_pixels}")
        self.weight = None if weight is None else paddle.to_tensor(weight, dtype="float32")
        self.ignore_index = ignore_index
        self.top_k_percent_pixels = top_k_percent_pixels
        self.avg_non_ignore = avg_non_ignore

    def forward(self, logits, label, semantic_weights=None):
        """`logits [B, K, H, W]`, integer `label [B, H, W]`, optional weight of each pixel `[B, H, W]`; a scalar."""
        label = label.astype("int64")
        valid = (label != self.ignore_index).astype("float32")
        losses = pixel_losses(logits, label, self.ignore_index)
        if semantic_weights is not None:
            losses = losses * semantic_weights
        if self.weight is None:
            share = paddle.ones_like(losses)
        else:
            share = class_weights(self.weight, label, valid, logits.shape[1])
            losses = losses * share
        if self.top_k_percent_pixels < 1:
            # The mean over the largest losses. Where these reach into the ignored pixels, those count in the divisor: by 1, or
            # by the weight of class 0. That is PaddleSeg's rule, and so is their number, a float32 product rounded down.
            count = int(np.float32(self.top_k_percent_pixels) * np.float32(losses.size))
            losses, indices = paddle.topk(losses.flatten(), max(1, count))
            share = paddle.gather(share.flatten(), indices)
        elif self.avg_non_ignore or self.weight is not None:
            share = share * valid
        return losses.mean() / (share.mean() + _EPS)
