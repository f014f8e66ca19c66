# SPDX-License-Identifier: Apache-2.0
"""SETR decoders (Zheng et al., "Rethinking Semantic Segmentation ... with Transformers", CVPR 2021), as in DGMN2.

They differ from the SETR paper and from PaddleSeg's SETR: no layer norm, no auxiliary heads, fewer convolutions. The
published code gives sizes as one integer, which makes every enlarged map square, also for images that are not. The
published multi-scale results depend on it (their 512x769 windows), so it is the default: `square_upsample: true`.
"""

from paddle_dnl.errors import ConfigError
from paddle_dnl.nn.cpu.row_strips import Conv2D
from paddle_dnl.nn.layers import batch_norm, relu_inplace
from paddle_dnl.nn.resize import resize, spatial_size
from paddle_dnl.nn.torch_init import init_conv_like_torch
from paddle_dnl.registry import MODELS

import paddle
from paddle import nn


def _conv(in_channels: int, out_channels: int, kernel_size: int, bias: bool) -> Conv2D:
    bias_attr = None if bias else False
    conv = Conv2D(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias_attr=bias_attr)
    init_conv_like_torch(conv)
    return conv


def _enlarged(x, factor: int, square: bool):
    """Bilinear, corners aligned, to `factor` times the size; square: both sides `factor` times the width."""
    height, width = spatial_size(x)
    return resize(x, [factor * (width if square else height), factor * width], align_corners=True)


class NaiveHead(nn.Layer):
    """A 1x1 convolution on the last map; its logits are then resized to the training crop (square) or not at all."""

    def __init__(self, in_channels: list[int], num_classes: int, image_size: int, square: bool):
        super().__init__()
        self.image_size, self.square = image_size, square
        self.conv_seg = _conv(in_channels[-1], num_classes, 1, bias=True)

    def forward(self, feats: list):
        x = self.conv_seg(feats[-1])
        return resize(x, [self.image_size, self.image_size], align_corners=True) if self.square else x


class PUPHead(nn.Layer):
    """Progressive upsampling: three times 3x3 convolution, batch norm, ReLU and doubling, then classify and double.

    On maps of stride 8 the result is twice as large as the image, 1552x1552 logits for 769x769. Each enlarged map
    replaces the one before it, so that in evaluation no more than one of them is held.
    """

    def __init__(self, in_channels: list[int], num_classes: int, image_size: int, square: bool, channels: int = 256):
        super().__init__()
        self.square = square
        for i, width in enumerate((in_channels[-1], channels, channels)):
            self.add_sublayer(f"conv_{i}", _conv(width, channels, 3, bias=True))
            self.add_sublayer(f"syncbn_fc_{i}", batch_norm(channels))
        self.conv_seg = _conv(channels, num_classes, 1, bias=True)

    def forward(self, feats: list):
        x = feats[-1]
        for i in range(3):
            x = getattr(self, f"conv_{i}")(x)
            x = relu_inplace(getattr(self, f"syncbn_fc_{i}")(x))
            x = _enlarged(x, 2, self.square)
        x = self.conv_seg(x)
        return _enlarged(x, 2, self.square)


class MultiLevel(nn.Layer):
    """Two 3x3 convolutions with batch norm and ReLU on each of four maps, then four times the size and concatenation."""

    def __init__(self, in_channels: list[int], channels: int, square: bool):
        super().__init__()
        self.square = square
        for level, width in enumerate(in_channels, start=2):
            head = nn.Sequential(
                _conv(width, channels, 3, bias=False),
                batch_norm(channels),
                nn.ReLU(),
                _conv(channels, channels, 3, bias=False),
                batch_norm(channels),
                nn.ReLU(),
            )
            self.add_sublayer(f"head{level}", head)

    def forward(self, feats: list):
        # The first map has stride 4, the others 8: all take the size that the second one has when enlarged.
        height, width = spatial_size(feats[1])
        size = [4 * (width if self.square else height), 4 * width]
        maps = []
        # Paddle turns enumerate into a static graph without its `start`.
        for index, x in enumerate(feats):
            maps.append(resize(getattr(self, f"head{index + 2}")(x), size, align_corners=True))
        return paddle.concat(maps, axis=1)


class MLAHead(nn.Layer):
    """Multi-level aggregation: `MultiLevel`, a 1x1 classifier, and (square) a resize to the training crop."""

    def __init__(self, in_channels: list[int], num_classes: int, image_size: int, square: bool, channels: int = 128):
        super().__init__()
        self.image_size, self.square = image_size, square
        self.mlahead = MultiLevel(in_channels, channels, square)
        self.conv_seg = _conv(channels * len(in_channels), num_classes, 1, bias=True)

    def forward(self, feats: list):
        x = self.conv_seg(self.mlahead(feats))
        return resize(x, [self.image_size, self.image_size], align_corners=True) if self.square else x


HEADS = {"naive": NaiveHead, "pup": PUPHead, "mla": MLAHead}
BACKBONE_OUTPUT = {"naive": "decode_head", "pup": "decode_head", "mla": "decode_head_multi"}


@MODELS.add_component
class DGMN2SETR(nn.Layer):
    """DGMN2 with one of three SETR decoders.

    Args:
        num_classes: number of classes K.
        backbone: a DGMN2 with `output: decode_head` for `naive` and `pup`, `output: decode_head_multi` for `mla`.
        decoder: `naive`, `pup` or `mla`.
        image_size: side in pixels of the square to which `naive` and `mla` resize their logits: the training crop.
        square_upsample: True: maps are resized to squares, as published; False: to the aspect ratio of the image. The
            two are equal only for `pup` on square images.
        pretrained: weights of the whole network (file or URL), loaded by the programs.

    Raises:
        ConfigError: unknown decoder, a backbone with another output, or an image size that is too small for the backbone.
    """

    def __init__(
        self,
        num_classes: int,
        backbone: nn.Layer,
        decoder: str = "pup",
        image_size: int = 769,
        square_upsample: bool = True,
        pretrained: str | None = None,
    ):
        super().__init__()
        if decoder not in HEADS:
            raise ConfigError(f"DGMN2SETR.decoder: {decoder!r} is none of {', '.join(HEADS)}")
        needed, given = BACKBONE_OUTPUT[decoder], getattr(backbone, "output", None)
        if given != needed:
            raise ConfigError(
                f"DGMN2SETR.backbone.output: the decoder '{decoder}' needs '{needed}', "
                f"{type(backbone).__name__} has {given!r}"
            )
        if not isinstance(image_size, int) or image_size < backbone.minimum_image:
            raise ConfigError(
                f"DGMN2SETR.image_size: expected {backbone.minimum_image} pixels or more, got {image_size!r}"
            )
        self.backbone = backbone
        self.pretrained = pretrained
        self.decode_head = HEADS[decoder](backbone.feat_channels, num_classes, image_size, square_upsample)

    def forward(self, x):
        """`[B, 3, H, W]` -> list with the logits `[B, K, H, W]`."""
        size = spatial_size(x)
        return [resize(self.decode_head(self.backbone(x)), size, align_corners=True)]
