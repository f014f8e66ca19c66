# SPDX-License-Identifier: Apache-2.0
"""The tiny net with batch normalisation, in a module of its own since a net is registered once."""

from paddle_dnl.registry import MODELS

import paddle
import tiny_training


@MODELS.add_component
class TinyNormNet(tiny_training.TinyNet):
    """With batch statistics, which each rank has of its own."""

    def __init__(self, num_classes, **kwargs):
        super().__init__(num_classes, **kwargs)
        self.conv = paddle.nn.Sequential(self.conv, paddle.nn.BatchNorm2D(8))
