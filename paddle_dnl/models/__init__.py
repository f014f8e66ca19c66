# SPDX-License-Identifier: Apache-2.0
"""Segmentation models: backbone + head, one file per paper. Importing this package registers all of them."""

from paddle_dnl.models import backbones
from paddle_dnl.models.dmnet import DMNet
from paddle_dnl.models.dnlnet import DNLNet
from paddle_dnl.models.semantic_fpn import SemanticFPN
from paddle_dnl.models.setr import DGMN2SETR

__all__ = ["DGMN2SETR", "DMNet", "DNLNet", "SemanticFPN", "backbones"]
