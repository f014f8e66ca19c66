# SPDX-License-Identifier: Apache-2.0
"""A weighted sum of losses on the same output."""

from collections.abc import Sequence

from paddle_dnl.losses import foreign
from paddle_dnl.registry import LOSSES

from paddle import nn


@LOSSES.add_component
class MixedLoss(nn.Layer):
    """Weighted sum of several losses of one output. Returns the list of its terms, like PaddleSeg's.

    Args:
        losses: list of losses, `(logits, label) -> scalar`.
        coef: list of weights, one per loss.

    Raises:
        ValueError: not as many factors as losses.
    """

    def __init__(self, losses: Sequence, coef: Sequence[float]):
        super().__init__()
        if len(losses) != len(coef):
            raise ValueError(f"MixedLoss has {len(losses)} losses and {len(coef)} coef")
        self.losses = list(losses)
        self.coef = list(coef)

    def forward(self, logits, label):
        """`logits [B, K, H, W]`, `label [B, H, W]`; returns weighted scalars, one per loss."""
        return [factor * foreign.call(loss, logits, label) for loss, factor in zip(self.losses, self.coef, strict=True)]
