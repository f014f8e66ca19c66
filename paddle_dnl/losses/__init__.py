# SPDX-License-Identifier: Apache-2.0
"""Losses on logits `[B, K, H, W]` and labels `[B, H, W]`, computed in float32."""

from paddle_dnl.losses.build import Losses, build_losses
from paddle_dnl.losses.cross_entropy import CrossEntropyLoss
from paddle_dnl.losses.mixed import MixedLoss
from paddle_dnl.losses.ohem import OhemCrossEntropyLoss

__all__ = ["CrossEntropyLoss", "Losses", "MixedLoss", "OhemCrossEntropyLoss", "build_losses"]
