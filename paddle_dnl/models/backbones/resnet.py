# SPDX-License-Identifier: Apache-2.0
"""ResNet for segmentation (He et al., CVPR 2016), in the four forms that start weights exist for.

| stem  | first convolutions       | strided shortcut          | dilated stages   | from                                      |
|-------|--------------------------|---------------------------|------------------|-------------------------------------------|
| `vd`  | 32-32-64                 | 2x2 average pool, 1x1     | all blocks alike | PaddleSeg, PaddleClas, timm's `resnet50d` |
| `v1c` | 32-32-64                 | 1x1 with stride           | first block half | mmsegmentation                            |
| `3x3` | 64-64-128, ceil max-pool | 1x1 with stride           | first block half | the DNL authors                           |
| `v1`  | 64, one 7x7 convolution  | 1x1 with stride           | first block half | torchvision, `paddle.vision.models`       |

Initial values are the source's too: Paddle's defaults for `vd`; normal with variance 2/fan_out for the other three, and with
`v1c` the last batch norm of each residual branch starts at 0.

All four use the parameter names of PaddleSeg's `ResNet_vd`: `conv1_{1,2,3}`, `bb_{stage}_{block}.conv{0,1,2}` and
`bb_{stage}_{block}.short`; the one convolution of `v1` is `conv1_1`. The stride of a bottleneck is in its 3x3 convolution.
"""

import itertools
from collections.abc import Callable, Sequence

from paddle_dnl.nn import channels_last
from paddle_dnl.nn.cpu.recomputed_norm import ConvChain
from paddle_dnl.nn.layers import ConvBN, ConvBNReLU, add_inplace, relu_inplace
from paddle_dnl.nn.torch_init import init_conv_module
from paddle_dnl.registry import BACKBONES

from paddle import nn

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
# Channels of the first convolutions: one of 7x7, or three of 3x3.
STEMS = {"vd": (32, 32, 64), "v1c": (32, 32, 64), "3x3": (64, 64, 128), "v1": (64,)}
WIDTHS = (64, 128, 256, 512)

# Output stride -> dilation of the four stages; a dilated stage keeps its input's resolution.
DILATIONS = {8: (1, 1, 2, 4), 16: (1, 1, 1, 2), 32: (1, 1, 1, 1)}


class ResNet(nn.Layer):
    """Image `[B, in_channels, H, W]` to four feature maps `[B, C_s, H_s, W_s]`, one per stage.

    Args:
        depth: 18, 34, 50, 101 or 152.
        stem: first layers and shortcuts: `vd` (PaddleSeg), `v1c` (mmsegmentation), `3x3` (the DNL authors) or `v1`
            (torchvision); details at the top of `paddle_dnl/models/backbones/resnet.py`.
        output_stride: size of the image / size of the last feature map: 8, 16 or 32.
        multi_grid: factors on the dilation of the last stage's blocks.
        contract_dilation: the first block of a dilated stage has half of the stage's dilation; null: True except for `vd`.
        in_channels: channels of the image.
        project_first: for `vd` with 18 or 34 layers: project the input of the very first block although the shapes agree,
            as PaddleSeg does; timm's `resnet18d` and `resnet34d` do not.
        pretrained: weights of the backbone (file or URL), loaded by the programs.

    Attributes:
        feat_channels: channels of the four outputs.
        channels_last: compute in NHWC where the device does so, see `paddle_dnl.nn.channels_last`; `amp.set_data_format` sets it.

    Raises:
        ValueError: an argument is not among its options.
    """

    channels_last = False

    def __init__(
        self,
        depth: int,
        stem: str = "vd",
        output_stride: int = 8,
        multi_grid: Sequence[int] = (1, 1, 1),
        contract_dilation: bool | None = None,
        in_channels: int = 3,
        pretrained: str | None = None,
        project_first: bool = True,
    ):
        super().__init__()
        for name, value, options in (
            ("depth", depth, BLOCKS),
            ("stem", stem, STEMS),
            ("output_stride", output_stride, DILATIONS),
        ):
            if value not in options:
                raise ValueError(f"{name} must be one of {', '.join(map(str, options))}; got {value!r}")
        if len(multi_grid) < BLOCKS[depth][3]:
            raise ValueError(f"multi_grid needs {BLOCKS[depth][3]} numbers for ResNet{depth}, got {multi_grid!r}")
        if contract_dilation is None:
            contract_dilation = stem != "vd"
        self.pretrained = pretrained
        self.stem = stem

        stem_convs = []
        channels = in_channels
        for i, width in enumerate(STEMS[stem]):
            conv = ConvBNReLU(channels, width, 7 if stem == "v1" else 3, stride=2 if i == 0 else 1, bias_attr=False)
            stem_convs.append(self.add_sublayer(f"conv1_{i + 1}", conv))
            channels = width
        self.stem_convs = ConvChain(*stem_convs)
        self.pool2d_max = nn.MaxPool2D(3, 2, padding=1, ceil_mode=stem == "3x3")

        block_class = _Bottleneck if depth >= 50 else _BasicBlock
        self.feat_channels = [width * block_class.expansion for width in WIDTHS]
        self._stages = []  # a plain list: the blocks are registered one by one under PaddleSeg's names
        for stage, count in enumerate(BLOCKS[depth]):
            blocks = []
            for i in range(count):
                stride, dilation = _stride_and_dilation(stage, i, stem, output_stride, multi_grid, contract_dilation)
                always = stem == "vd" and i == 0 and (stage > 0 or project_first)
                block = block_class(channels, WIDTHS[stage], stride, dilation, vd=stem == "vd", project=always)
                blocks.append(self.add_sublayer(f"bb_{stage}_{i}", block))
                channels = self.feat_channels[stage]
            self._stages.append(blocks)
        # The initial values of the source, see the table at the top of the file; those of `vd` are Paddle's.
        if stem != "vd":
            for layer in self.sublayers():
                if isinstance(layer, ConvBN):
                    init_conv_module(layer._conv)
        if stem == "v1c":
            for block in itertools.chain(*self._stages):
                nn.initializer.Constant(0.0)(block.residual.chained[-1]._batch_norm.weight)

    def stage_names(self) -> list[list[str]]:
        """Names of the layers of the stem and of each of the four stages."""
        names = [name for name, _ in self.named_children()]
        stem = [name for name in names if name.startswith("conv1_")]
        return [stem, *([name for name in names if name.startswith(f"bb_{i}_")] for i in range(4))]

    def forward(self, x):
        return channels_last.run(self._features, x) if self.channels_last else self._features(x)

    def _features(self, x):
        x = self.pool2d_max(self.stem_convs(x))
        features = []
        for blocks in self._stages:
            for block in blocks:
                x = block(x)
            features.append(x)
        return features


def _stride_and_dilation(stage, block, stem, output_stride, multi_grid, contract_dilation) -> tuple[int, int]:
    """Stride and dilation of one block's 3x3 convolution."""
    dilation = DILATIONS[output_stride][stage]
    strided = block == 0 and stage > 0 and dilation == 1
    if contract_dilation and block == 0 and dilation > 1:
        dilation //= 2
    if stage == 3:
        dilation *= multi_grid[block]
    if stem == "vd" and dilation > 1:
        strided = False  # PaddleSeg never strides a dilated block, even when only multi_grid dilates it
    return (2 if strided else 1), dilation


class _Shortcut(ConvBN):
    """1x1 projection of a block's input; `vd` halves the resolution by averaging instead of by skipping pixels."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, vd: bool):
        super().__init__(in_channels, out_channels, 1, stride=1 if vd else stride, bias_attr=False)
        self._pool = nn.AvgPool2D(2, 2, ceil_mode=True) if vd and stride == 2 else None

    def forward(self, x):
        if self._pool is not None:
            x = self._pool(x)
        return self.finish(self._conv(x))


def _shortcut(in_channels: int, out_channels: int, stride: int, vd: bool, project: bool):
    """The projection where the shape changes or where it is asked for, else None for the identity."""
    if stride != 1 or in_channels != out_channels or project:
        return _Shortcut(in_channels, out_channels, stride, vd)
    return None


class _Bottleneck(nn.Layer):
    """1x1, 3x3 (with the stride), 1x1 to four times the width."""

    expansion = 4

    def __init__(self, in_channels, width, stride, dilation, vd, project):
        super().__init__()
        out_channels = width * self.expansion
        self.conv0 = ConvBNReLU(in_channels, width, 1, bias_attr=False)
        self.conv1 = ConvBNReLU(width, width, 3, stride=stride, dilation=dilation, bias_attr=False)
        self.conv2 = ConvBN(width, out_channels, 1, bias_attr=False)
        self.residual = ConvChain(self.conv0, self.conv1, self.conv2)
        self.short = _shortcut(in_channels, out_channels, stride, vd, project)

    def forward(self, x):
        y = self.residual(x)
        return relu_inplace(add_inplace(y, x if self.short is None else self.short(x)))


class _BasicBlock(nn.Layer):
    """Two 3x3 convolutions; stride and dilation in the first, dilation in both with `vd` (PaddleSeg)."""

    expansion = 1

    def __init__(self, in_channels, width, stride, dilation, vd, project):
        super().__init__()
        self.conv0 = ConvBNReLU(in_channels, width, 3, stride=stride, dilation=dilation, bias_attr=False)
        self.conv1 = ConvBN(width, width, 3, dilation=dilation if vd else 1, bias_attr=False)
        self.residual = ConvChain(self.conv0, self.conv1)
        self.short = _shortcut(in_channels, width, stride, vd, project)

    def forward(self, x):
        y = self.residual(x)
        return relu_inplace(add_inplace(y, x if self.short is None else self.short(x)))


# ---- the names that configurations use ----------------------------------------------------------------


def _register(depth: int, suffix: str, make: Callable) -> Callable:
    make.__name__ = make.__qualname__ = f"ResNet{depth}{suffix}"
    return BACKBONES.add_component(make)


def _basic(depth: int) -> Callable:
    """The constructor of a network of basic blocks."""

    def make(
        stem="vd",
        output_stride=8,
        multi_grid=(1, 1, 1),
        contract_dilation=None,
        in_channels=3,
        pretrained=None,
        project_first=True,
    ):
        return ResNet(depth, stem, output_stride, multi_grid, contract_dilation, in_channels, pretrained, project_first)

    make.__doc__ = f"ResNet with {depth} layers, see `ResNet`."
    return _register(depth, "", make)


def _bottleneck(depth: int) -> Callable:
    """The constructor of a network of bottleneck blocks, whose first block projects its input in any case."""

    def make(stem="vd", output_stride=8, multi_grid=(1, 1, 1), contract_dilation=None, in_channels=3, pretrained=None):
        return ResNet(depth, stem, output_stride, multi_grid, contract_dilation, in_channels, pretrained)

    make.__doc__ = f"ResNet with {depth} layers, see `ResNet`."
    return _register(depth, "", make)


def _vd(depth: int) -> Callable:
    """The constructor with the arguments of PaddleSeg's of the same name."""

    def make(output_stride=8, multi_grid=(1, 1, 1), in_channels=3, pretrained=None, data_format="NCHW"):
        if data_format != "NCHW":
            raise ValueError(f"ResNet{depth}_vd: data_format must be 'NCHW', got {data_format!r}")
        return ResNet(depth, "vd", output_stride, multi_grid, None, in_channels, pretrained)

    make.__doc__ = f"PaddleSeg's ResNet{depth}_vd, see `ResNet`; `data_format` must be NCHW."
    return _register(depth, "_vd", make)


ResNet18, ResNet34 = map(_basic, (18, 34))
ResNet50, ResNet101, ResNet152 = map(_bottleneck, (50, 101, 152))
ResNet18_vd, ResNet34_vd, ResNet50_vd, ResNet101_vd = map(_vd, (18, 34, 50, 101))
