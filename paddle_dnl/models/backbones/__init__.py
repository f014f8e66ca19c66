# SPDX-License-Identifier: Apache-2.0
"""Backbones: image to a list of feature maps. Importing this package registers all of them."""

from paddle_dnl.models.backbones import dgmn2, resnet

__all__ = ["dgmn2", "resnet"]
