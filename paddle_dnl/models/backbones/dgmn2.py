# SPDX-License-Identifier: Apache-2.0
"""DGMN2 backbone (Zhang et al., "Dynamic Graph Message Passing Networks for Visual Recognition", TPAMI 2022).

Four stages of convolutional patch embedding and pre-norm blocks; there is no norm after a stage, no class token and no
absolute position embedding. Parameter names are those of the published checkpoints.
"""

from paddle_dnl.errors import ConfigError
from paddle_dnl.nn.cpu.row_strips import Conv2D
from paddle_dnl.nn.dgmn2_attention import DGMN2Attention, linear
from paddle_dnl.nn.layers import batch_norm, relu_inplace
from paddle_dnl.nn.shapes import is_known, size_of
from paddle_dnl.nn.torch_init import init_conv_like_torch
from paddle_dnl.registry import BACKBONES

import paddle
import paddle.nn.functional as F
from paddle import nn

DIMS = (64, 128, 320, 512)
HEADS = (1, 2, 5, 8)
MLP_RATIOS = (8, 8, 4, 4)
IMAGENET_MAPS = (56, 28, 14, 7)
# Stage strides per output mode; the same weights serve all three.
STRIDES = {"decode_head": (4, 2, 1, 1), "decode_head_multi": (4, 2, 1, 1), "neck": (4, 2, 2, 2)}
# The sampling needs 3x3 in the smallest map: with strides 4, 8, 8, 8 that is an image of 17 pixels, with 4..32 of 65.
MINIMUM_IMAGE = {"decode_head": 17, "decode_head_multi": 17, "neck": 65}
DROP_PATH_MODES = ("sample", "batch")


def _conv3x3(in_channels: int, out_channels: int, stride: int) -> Conv2D:
    conv = Conv2D(in_channels, out_channels, 3, stride=stride, padding=1, bias_attr=False)
    init_conv_like_torch(conv)
    return conv


class Stem(nn.Layer):
    """Three 3x3 convolutions to stride 4, `[B, C, H, W]` -> `[B, 64, H/4, W/4]`."""

    def __init__(self, in_channels: int, dim: int):
        super().__init__()
        half = dim // 2
        self.conv1, self.norm1 = _conv3x3(in_channels, half, 2), batch_norm(half)
        self.conv2, self.norm2 = _conv3x3(half, half, 1), batch_norm(half)
        self.conv3, self.norm3 = _conv3x3(half, dim, 2), batch_norm(dim)

    def forward(self, x):
        x = relu_inplace(self.norm1(self.conv1(x)))
        x = relu_inplace(self.norm2(self.conv2(x)))
        return relu_inplace(self.norm3(self.conv3(x)))


class PatchEmbed(nn.Layer):
    """One 3x3 convolution, batch norm and ReLU between two stages."""

    def __init__(self, in_channels: int, dim: int, stride: int):
        super().__init__()
        self.conv, self.norm = _conv3x3(in_channels, dim, stride), batch_norm(dim)

    def forward(self, x):
        return relu_inplace(self.norm(self.conv(x)))


class DropPath(nn.Layer):
    """Stochastic depth: drops a residual branch, for each sample or for the whole batch, and scales up the kept ones."""

    def __init__(self, rate: float, mode: str = "sample"):
        super().__init__()
        self.rate, self.mode = rate, mode

    def forward(self, x):
        if not self.training or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        shape = [x.shape[0] if self.mode == "sample" else 1] + [1] * (x.ndim - 1)
        return x * (paddle.bernoulli(paddle.full(shape, keep, x.dtype)) / keep)


class Mlp(nn.Layer):
    """Linear, exact GELU, linear."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.fc1, self.fc2 = linear(dim, hidden), linear(hidden, dim)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x)))


class DGMN2Block(nn.Layer):
    """x += attention(norm(x)); x += mlp(norm(x)), on tokens `[B, H * W, C]`."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        mlp_ratio: int,
        table_rows: tuple[int, int],
        drop_path_rate: float = 0.0,
        drop_path_mode: str = "sample",
        unfold: str = "auto",
    ):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, epsilon=1e-6)
        self.attn = DGMN2Attention(dim, num_heads, table_rows, unfold)
        self.norm2 = nn.LayerNorm(dim, epsilon=1e-6)
        self.mlp = Mlp(dim, mlp_ratio * dim)
        self.drop_path = DropPath(drop_path_rate, drop_path_mode)

    def forward(self, x, height, width):
        x = x + self.drop_path(self.attn(self.norm1(x), height, width))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class DGMN2(nn.Layer):
    """The DGMN2 backbone: image `[B, in_channels, H, W]` to a list of feature maps; the sizes differ in the number of blocks.

    Args:
        output: the returned feature maps: `decode_head` (the last one; strides of the stages 4, 8, 8, 8),
            `decode_head_multi` (all four, the same strides) or `neck` (all four, strides 4, 8, 16, 32).
        in_channels: channels of the image.
        drop_path_rate: stochastic depth: rate of the last block; it rises linearly from 0 in the first block. Published: 0.
        drop_path_mode: `sample` (drawn for each sample) or `batch` (drawn once for the batch).
        unfold: implementation: `auto`, `deform` or `grid`, see `paddle_dnl.nn.deformable_unfold`.
        recompute: activation checkpointing: keep only the input of each block and compute the block again in the backward
            pass. The gradients are the same; without it, DGMN2_Large keeps 8.1 GB per 769x769 image.
        pretrained: weights of the backbone (file or URL), loaded by the programs.

    Raises:
        ConfigError: unknown names, a rate outside [0, 1), or (in `forward`) an image that is too small.
    """

    depths: tuple[int, int, int, int] = (2, 2, 2, 2)

    def __init__(
        self,
        output: str = "decode_head",
        in_channels: int = 3,
        drop_path_rate: float = 0.0,
        drop_path_mode: str = "sample",
        unfold: str = "auto",
        recompute: bool = False,
        pretrained: str | None = None,
    ):
        super().__init__()
        if output not in STRIDES:
            raise ConfigError(f"DGMN2.output: {output!r} is none of {', '.join(STRIDES)}")
        if not 0 <= drop_path_rate < 1:
            raise ConfigError(f"DGMN2.drop_path_rate: expected a number from 0 to below 1, got {drop_path_rate!r}")
        if drop_path_mode not in DROP_PATH_MODES:
            raise ConfigError(f"DGMN2.drop_path_mode: {drop_path_mode!r} is none of {', '.join(DROP_PATH_MODES)}")
        self.output = output
        self.recompute = recompute
        self.pretrained = pretrained
        self.feat_channels = list(DIMS) if output != "decode_head" else [DIMS[-1]]
        rates = [drop_path_rate * i / (sum(self.depths) - 1) for i in range(sum(self.depths))]
        self.patch_embed1 = Stem(in_channels, DIMS[0])
        for i in range(1, 4):
            embedding = PatchEmbed(DIMS[i - 1], DIMS[i], STRIDES[output][i])
            self.add_sublayer(f"patch_embed{i + 1}", embedding)
        for i, depth in enumerate(self.depths):
            rows = (IMAGENET_MAPS[i], IMAGENET_MAPS[i])
            stage = [
                DGMN2Block(DIMS[i], HEADS[i], MLP_RATIOS[i], rows, rates.pop(0), drop_path_mode, unfold)
                for _ in range(depth)
            ]
            self.add_sublayer(f"block{i + 1}", nn.LayerList(stage))

    @property
    def minimum_image(self) -> int:
        """Smallest height and width of an image, in pixels."""
        return MINIMUM_IMAGE[self.output]

    def stage_names(self) -> list[list[str]]:
        """Names of the layers of the stem, which is the first embedding, and of each of the four stages."""
        stages = [[f"patch_embed{i}", f"block{i}"] for i in range(2, 5)]
        return [["patch_embed1"], ["block1"], *stages]

    def _run_block(self, block: nn.Layer, x, height, width):
        """With recomputation in training: activations inside the block are not kept."""
        if self.recompute and self.training and paddle.in_dynamic_mode():
            from paddle.distributed.fleet.utils import recompute

            return recompute(block, x, height, width)
        return block(x, height, width)

    def forward(self, x):
        """Image `[B, 3, H, W]` -> list of maps, one (`decode_head`) or four."""
        height, width = size_of(x, 2), size_of(x, 3)
        if is_known(height) and is_known(width) and min(height, width) < self.minimum_image:
            raise ConfigError(
                f"DGMN2 with output '{self.output}' needs images of {self.minimum_image} pixels or more on both sides "
                f"(its smallest map must be 3x3), got {height}x{width} (height x width)"
            )
        feats = []
        for stage in range(1, 5):
            x = getattr(self, f"patch_embed{stage}")(x)
            dim, height, width = x.shape[1], size_of(x, 2), size_of(x, 3)
            x = x.flatten(2).transpose([0, 2, 1])
            for block in getattr(self, f"block{stage}"):
                x = self._run_block(block, x, height, width)
            x = x.transpose([0, 2, 1]).reshape([-1, dim, height, width])
            feats.append(x)
        return feats[-1:] if self.output == "decode_head" else feats


@BACKBONES.add_component
class DGMN2_Tiny(DGMN2):
    """DGMN2 with 8 blocks."""

    depths = (2, 2, 2, 2)


@BACKBONES.add_component
class DGMN2_Small(DGMN2):
    """DGMN2 with 16 blocks."""

    depths = (3, 4, 6, 3)


@BACKBONES.add_component
class DGMN2_Medium(DGMN2):
    """DGMN2 with 28 blocks."""

    depths = (3, 4, 18, 3)


@BACKBONES.add_component
class DGMN2_Large(DGMN2):
    """DGMN2 with 41 blocks."""

    depths = (3, 8, 27, 3)
