# SPDX-License-Identifier: Apache-2.0
"""DMNet: dynamic multi-scale filters (He, Deng and Qiao, ICCV 2019); PaddleSeg's constructor and parameter names."""

from collections.abc import Sequence

from paddle_dnl.errors import ConfigError
from paddle_dnl.nn.cpu.concat_conv import ConcatConvBNReLU
from paddle_dnl.nn.dynamic_filter import DynamicFilter
from paddle_dnl.nn.layers import ConvBNReLU, init_head
from paddle_dnl.nn.resize import resize, spatial_size
from paddle_dnl.nn.torch_init import init_conv_like_torch
from paddle_dnl.registry import MODELS

from paddle import nn


@MODELS.add_component
class DMNet(nn.Layer):
    """Dynamic multi-scale filters: convolves the last feature map with kernels of several sizes computed from that map.

    The logits have the size of the image. (PaddleSeg's network resizes by the factor 8: 769 pixels become 776.) The
    defaults are PaddleSeg's network; `aux_channels: 256, dropout_ratio: 0.1, conv_bias: false, align_corners: false,
    init: mmseg` on a ResNet `v1c` with contracted dilation is mmsegmentation's.

    Args:
        num_classes: number of classes K.
        backbone: returns four feature maps with strides 4, 8, 8 or 16, and 8 or 16, and has `feat_channels`.
        mid_channels: channels of the dynamic convolutions and of the head.
        filter_sizes: kernel sizes, one dynamic convolution for each; positive integers.
        fusion: add a 1x1 convolution after each dynamic convolution.
        pretrained: weights of the whole network (file or URL), loaded by the programs.
        aux_channels: channels of the auxiliary head on stage 3; null: `mid_channels`.
        dropout_ratio: channel dropout before both classifiers.
        align_corners: resize the logits with aligned corners; True in PaddleSeg, and in mmsegmentation for 769x769 crops.
        conv_bias: biases in convolutions that a batch norm follows, as in PaddleSeg's checkpoints.
        enable_auxiliary_loss: create the auxiliary head.
        dynamic_conv: implementation: `auto`, `grouped` or `batch_free`, see `paddle_dnl.nn.dynamic_filter`.
        init: initialisation of the heads: `paddle` (as in PaddleSeg) or `mmseg`.

    Raises:
        ConfigError: no or non-positive filter sizes, a backbone without four feature maps, unknown names.
    """

    def __init__(
        self,
        num_classes: int,
        backbone: nn.Layer,
        mid_channels: int = 512,
        filter_sizes: Sequence[int] = (1, 3, 5, 7),
        fusion: bool = False,
        pretrained: str | None = None,
        aux_channels: int | None = None,
        dropout_ratio: float = 0.0,
        align_corners: bool = True,
        conv_bias: bool = True,
        enable_auxiliary_loss: bool = True,
        dynamic_conv: str = "auto",
        init: str = "paddle",
    ):
        super().__init__()
        self._check(backbone, filter_sizes, init)
        channels = backbone.feat_channels
        bias = None if conv_bias else False
        self.backbone = backbone
        self.align_corners = align_corners
        self.pretrained = pretrained
        self.dcm_modules = nn.LayerList(
            DynamicFilter(k, fusion, channels[-1], mid_channels, conv_bias, dynamic_conv) for k in filter_sizes
        )
        concatenated = channels[-1] + len(filter_sizes) * mid_channels
        self.bottleneck = ConcatConvBNReLU(concatenated, mid_channels, 3, bias_attr=bias)
        self.dropout = nn.Dropout2D(dropout_ratio) if dropout_ratio else None
        self.cls = nn.Conv2D(mid_channels, num_classes, 1)
        self.fcn_head = None
        if enable_auxiliary_loss:
            width = aux_channels or mid_channels
            self.fcn_head = nn.Sequential(
                ConvBNReLU(channels[2], width, 3, bias_attr=bias), nn.Conv2D(width, num_classes, 1)
            )
        if init == "mmseg":
            init_head([self.dcm_modules, self.bottleneck, self.cls, *filter(None, [self.fcn_head])], "mmseg")
            for dynamic_filter in self.dcm_modules:
                init_conv_like_torch(dynamic_filter.filter_gen_conv)

    @staticmethod
    def _check(backbone, filter_sizes, init: str) -> None:
        if isinstance(filter_sizes, int) or not len(filter_sizes):
            raise ConfigError(f"DMNet.filter_sizes: expected a list like [1, 3, 5, 7], got {filter_sizes!r}")
        if len(getattr(backbone, "feat_channels", ())) != 4:
            name = type(backbone).__name__
            raise ConfigError(f"DMNet.backbone: {name} does not give four feature maps; use a ResNet")
        if init not in ("paddle", "mmseg"):
            raise ConfigError(f"DMNet.init: {init!r} is neither 'paddle' nor 'mmseg'")

    def _classify(self, x, classifier: nn.Layer, size):
        if self.dropout is not None:
            x = self.dropout(x)
        return resize(classifier(x), size, align_corners=self.align_corners)

    def _multi_scale(self, x):
        """The map itself, then each dynamically filtered one, computed when it is asked for."""
        yield x
        for dynamic_filter in self.dcm_modules:
            yield dynamic_filter(x)

    def forward(self, x):
        """`[B, 3, H, W]` -> logits `[B, K, H, W]`: the main ones, and in training the auxiliary ones."""
        size = spatial_size(x)
        feats = self.backbone(x)
        stage3, stage4 = feats[2], feats[3]
        if not self.training:
            del feats, stage3
        y = self.bottleneck(self._multi_scale(stage4))
        logits = [self._classify(y, self.cls, size)]
        if self.training and self.fcn_head is not None:
            logits.append(self._classify(self.fcn_head[0](stage3), self.fcn_head[1], size))
        return logits
