# SPDX-License-Identifier: Apache-2.0
"""Semantic FPN (Kirillov et al., "Panoptic Feature Pyramid Networks", CVPR 2019) as published with DGMN2.

Parameter names are those of the OpenMMLab checkpoints (`neck.`, `decode_head.`). PaddleSeg's PFPNNet is another network.
"""

from paddle_dnl.errors import ConfigError
from paddle_dnl.nn.cpu.row_strips import Conv2D
from paddle_dnl.nn.layers import batch_norm, relu_inplace
from paddle_dnl.nn.resize import resize, spatial_size
from paddle_dnl.nn.torch_init import init_conv_like_torch, init_conv_module
from paddle_dnl.registry import MODELS

import paddle
from paddle import nn


class ConvModule(nn.Layer):
    """Convolution that keeps the size; either batch norm and ReLU follow, or it has a bias and nothing follows."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, norm: bool):
        super().__init__()
        bias = False if norm else None
        self.conv = Conv2D(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias_attr=bias)
        init_conv_module(self.conv)
        self.bn = batch_norm(out_channels) if norm else None

    def forward(self, x):
        y = self.conv(x)
        return y if self.bn is None else relu_inplace(self.bn(y))


class Upsample2x(nn.Layer):
    """Twice the size, bilinear."""

    def __init__(self, align_corners: bool):
        super().__init__()
        self.align_corners = align_corners

    def forward(self, x):
        height, width = spatial_size(x)
        return resize(x, [2 * height, 2 * width], align_corners=self.align_corners)


def resize_nearest(x, size):
    """Nearest-neighbour resize `[B, C, h, w]` -> `[B, C, *size]`: row i is row floor(i h / H).

    Made of row and column look-ups: the same on every backend. (Paddle Inference of 2.6 with oneDNN takes other pixels
    for an interpolation of this kind.)
    """
    height, width = spatial_size(x)
    rows = paddle.arange(0, size[0], 1, dtype="int64") * height // size[0]
    columns = paddle.arange(0, size[1], 1, dtype="int64") * width // size[1]
    return paddle.index_select(paddle.index_select(x, rows, 2), columns, 3)


class FPN(nn.Layer):
    """Feature pyramid: 1x1 convolutions, sums from coarse to fine, 3x3 convolutions; no norm, no activation."""

    def __init__(self, in_channels: list[int], channels: int):
        super().__init__()
        self.lateral_convs = nn.LayerList([ConvModule(c, channels, 1, norm=False) for c in in_channels])
        self.fpn_convs = nn.LayerList([ConvModule(channels, channels, 3, norm=False) for _ in in_channels])

    def forward(self, feats: list) -> list:
        """Maps from fine to coarse -> as many maps of the same sizes with equal channels."""
        maps = [conv(x) for conv, x in zip(self.lateral_convs, feats)]  # noqa: B905  to_static knows no `strict`
        for i in range(len(maps) - 1, 0, -1):
            maps[i - 1] = maps[i - 1] + resize_nearest(maps[i], spatial_size(maps[i - 1]))
        return [conv(x) for conv, x in zip(self.fpn_convs, maps)]  # noqa: B905


class FPNHead(nn.Layer):
    """Brings all levels to the size of the finest by convolution and doubling, sums them and classifies each pixel."""

    def __init__(self, in_channels: int, levels: int, channels: int, num_classes: int, dropout_ratio, align_corners):
        super().__init__()
        self.align_corners = align_corners
        self.scale_heads = nn.LayerList()
        for doublings in range(levels):
            layers = []
            for i in range(max(1, doublings)):
                layers.append(ConvModule(in_channels if i == 0 else channels, channels, 3, norm=True))
                if doublings:
                    layers.append(Upsample2x(align_corners))
            self.scale_heads.append(nn.Sequential(*layers))
        self.dropout = nn.Dropout2D(dropout_ratio)
        self.conv_seg = nn.Conv2D(channels, num_classes, 1)
        init_conv_like_torch(self.conv_seg)

    def forward(self, maps: list):
        """Maps from fine to coarse -> logits at the size of the finest."""
        total = self.scale_heads[0](maps[0])
        size = spatial_size(total)
        for head, x in zip(list(self.scale_heads)[1:], maps[1:]):  # noqa: B905
            total = total + resize(head(x), size, align_corners=self.align_corners)
        return self.conv_seg(self.dropout(total))


@MODELS.add_component
class SemanticFPN(nn.Layer):
    """Backbone, feature pyramid and a head that works at stride 4.

    Args:
        num_classes: number of classes K.
        backbone: gives four maps with strides 4, 8, 16, 32 (DGMN2: `output: neck`) and has `feat_channels`.
        neck_channels: width of the pyramid.
        head_channels: width of the head.
        dropout_ratio: channel dropout before the classifier.
        align_corners: in every bilinear resize; True as published.
        pretrained: weights of the whole network; loaded by the programs, not here.

    Raises:
        ConfigError: the backbone does not give such maps.
    """

    def __init__(
        self,
        num_classes: int,
        backbone: nn.Layer,
        neck_channels: int = 256,
        head_channels: int = 128,
        dropout_ratio: float = 0.1,
        align_corners: bool = True,
        pretrained: str | None = None,
    ):
        super().__init__()
        channels = list(getattr(backbone, "feat_channels", ()))
        mode = getattr(backbone, "output", "neck")
        if len(channels) != 4 or mode != "neck":
            raise ConfigError(
                "SemanticFPN.backbone: four feature maps with strides 4, 8, 16, 32 are needed; "
                f"{type(backbone).__name__} with output '{mode}' does not give them: set `output: neck`"
            )
        self.backbone = backbone
        self.align_corners = align_corners
        self.pretrained = pretrained
        self.neck = FPN(channels, neck_channels)
        self.decode_head = FPNHead(
            neck_channels, len(channels), head_channels, num_classes, dropout_ratio, align_corners
        )

    def forward(self, x):
        """`[B, 3, H, W]` -> list with the logits `[B, K, H, W]`."""
        size = spatial_size(x)
        logits = self.decode_head(self.neck(self.backbone(x)))
        return [resize(logits, size, align_corners=self.align_corners)]
