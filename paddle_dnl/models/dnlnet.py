# SPDX-License-Identifier: Apache-2.0
"""DNLNet: disentangled non-local networks for segmentation (Yin et al., ECCV 2020, https://arxiv.org/abs/2006.06668).

    image -> backbone -> C4, C5 (output stride 8)
    C5 -> conv0 -> DNL block -> conv1 -> [with C5] conv_cat -> cls -> logits
    C4 -> aux -> auxiliary logits, only in training

Arguments and parameter names are those of PaddleSeg's `DNLNet`. `dialect` chooses whose DNLNet it computes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from paddle_dnl.errors import ConfigError
from paddle_dnl.nn.cpu.concat_conv import ConcatConvBNReLU
from paddle_dnl.nn.disentangled_nonlocal import DIALECTS as BLOCK_DIALECTS
from paddle_dnl.nn.disentangled_nonlocal import DisentangledNonLocal2D
from paddle_dnl.nn.layers import ConvBNReLU, init_head
from paddle_dnl.nn.resize import resize, spatial_size
from paddle_dnl.registry import MODELS

from paddle import nn


@dataclass(frozen=True)
class Dialect:
    """What a published implementation computes where they differ.

    Attributes:
        block: arguments of `DisentangledNonLocal2D`.
        align_mode: of the last resize without `align_corners`, see `paddle_dnl.nn.resize`.
        aux_channels: width of the auxiliary head.
        init: initial values outside the block, see `DNLHead`.
    """

    block: dict
    align_mode: int
    aux_channels: int
    init: str


DIALECTS = {
    "paddleseg": Dialect(BLOCK_DIALECTS["paddleseg"], align_mode=1, aux_channels=256, init="paddle"),
    "mmseg": Dialect(BLOCK_DIALECTS["mmseg"], align_mode=0, aux_channels=256, init="mmseg"),
    "official": Dialect(BLOCK_DIALECTS["official"], align_mode=0, aux_channels=512, init="torch"),
}


@MODELS.add_component
class DNLNet(nn.Layer):
    """Disentangled non-local network: image `[B, 3, H, W]`, H and W >= 33, to a list of logits `[B, num_classes, H, W]`.

    The list holds the main output and, in training with `enable_auxiliary_loss`, the auxiliary one.

    Args:
        num_classes: number of classes.
        backbone: returns a list of feature maps and has `feat_channels`.
        backbone_indices: indices of the feature maps for the auxiliary head (C4) and the main head (C5).
        reduction: the queries and keys have 1 / reduction of the block's channels.
        use_scale: divide the pairwise logits by the square root of the number of query channels.
        mode: pairwise function: `embedded_gaussian`, `gaussian`, `dot_product` or `concatenation`.
        temperature: the pairwise logits are divided by it.
        concat_input: concatenate C5 with the block's output before the last convolution.
        enable_auxiliary_loss: use the auxiliary head in training. Its parameters exist in any case, as in PaddleSeg's
            checkpoints; without it they are frozen.
        align_corners: resize the logits with aligned corners; True for crops such as 769x769.
        pretrained: weights of the whole network (file or URL), loaded by the programs.
        dialect: the published implementation to follow in function and initialisation: `paddleseg`, `mmseg` or
            `official` (the DNL authors').
        whitening: which mean is subtracted from queries and keys, see `paddle_dnl.nn.whitening`.
        sub_sample: compute keys and values at half the resolution.
        pairwise: False removes the pairwise term (ablation).
        unary: False removes the unary term (ablation). Without both terms the block is left out: conv1 follows conv0.
        unary_key, combine: the paper's steps between the plain and the disentangled block, see
            `paddle_dnl.nn.disentangled_nonlocal.DisentangledNonLocal2D`.
        attention: `auto`, `plain`, `streaming` or `flash`, see `paddle_dnl.nn.attention`.

    Raises:
        ValueError: an argument is not among its options.
    """

    def __init__(
        self,
        num_classes: int,
        backbone: nn.Layer,
        backbone_indices: Sequence[int] = (2, 3),
        reduction: int = 2,
        use_scale: bool = True,
        mode: str = "embedded_gaussian",
        temperature: float = 0.05,
        concat_input: bool = True,
        enable_auxiliary_loss: bool = True,
        align_corners: bool = False,
        pretrained: str | None = None,
        dialect: str = "paddleseg",
        whitening: str = "spatial",
        sub_sample: bool = False,
        pairwise: bool = True,
        unary: bool = True,
        attention: str = "auto",
        unary_key: str = "own",
        combine: str = "add",
    ):
        super().__init__()
        if dialect not in DIALECTS:
            raise ValueError(f"dialect must be one of {', '.join(DIALECTS)}; got {dialect!r}")
        chosen = DIALECTS[dialect]
        block = chosen.block | dict(
            reduction=reduction, use_scale=use_scale, mode=mode, temperature=temperature, whitening=whitening,
            sub_sample=sub_sample, pairwise=pairwise, unary=unary, attention=attention, unary_key=unary_key, combine=combine,
        )  # fmt: skip
        self.backbone = backbone
        self.backbone_indices = tuple(backbone_indices)
        channels = getattr(backbone, "feat_channels", ())
        name = f"{type(backbone).__module__}.{type(backbone).__name__}"
        if not channels:
            raise ConfigError(
                f"DNLNet: model.backbone: {name} does not name the channels of its feature maps (`feat_channels`); use a "
                "ResNet of paddle_dnl"
            )
        if not all(-len(channels) <= i < len(channels) for i in self.backbone_indices):
            raise ConfigError(
                f"DNLNet: model.backbone_indices: {list(self.backbone_indices)} do not fit the {len(channels)} feature maps of "
                f"{name}; give indices from 0 to {len(channels) - 1}"
            )
        self.head = DNLHead(
            num_classes,
            [channels[i] for i in self.backbone_indices],
            block=block,
            concat_input=concat_input,
            enable_auxiliary_loss=enable_auxiliary_loss,
            aux_channels=chosen.aux_channels,
            init=chosen.init,
        )
        self.align_corners = align_corners
        self.align_mode = 0 if align_corners else chosen.align_mode
        self.pretrained = pretrained
        self.dialect = dialect

    def forward(self, x):
        size = spatial_size(x)
        features = self.backbone(x)
        # Maps that the head will not use are freed before it works.
        wanted = self.backbone_indices if self.training else self.backbone_indices[-1:]
        features = [features[i] for i in wanted]
        logits = self.head(features)
        del features
        return [resize(y, size, self.align_corners, self.align_mode) for y in logits]


class DNLHead(nn.Layer):
    """Feature maps (C4, C5), or (C5,) without auxiliary head, to logits at their resolution.

    Args:
        num_classes: number of classes.
        in_channels: channels of the maps.
        block: arguments of `DisentangledNonLocal2D` but its width, which is a quarter of C5's.
        concat_input: join C5 to the block's result before the last convolution.
        enable_auxiliary_loss: return the auxiliary logits in training.
        aux_channels: width of the auxiliary head.
        init: initial values of the convolutions outside the block. `paddle`: Paddle's defaults (PaddleSeg). `mmseg`:
            OpenMMLab's `ConvModule`; classifiers normal with standard deviation 0.01 and zero bias. `torch`: PyTorch's
            defaults (the authors).
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: Sequence[int],
        block: dict | None = None,
        concat_input: bool = True,
        enable_auxiliary_loss: bool = True,
        aux_channels: int = 256,
        init: str = "paddle",
    ):
        super().__init__()
        if enable_auxiliary_loss and len(in_channels) < 2:
            raise ValueError("the auxiliary loss needs two backbone_indices, for instance (2, 3)")
        width = in_channels[-1] // 4
        self.enable_auxiliary_loss = enable_auxiliary_loss
        self.concat_input = concat_input
        block = block or {}
        has_block = block.get("pairwise", True) or block.get("unary", True)
        self.dnl_block = DisentangledNonLocal2D(width, **block) if has_block else nn.Identity()
        self.conv0 = ConvBNReLU(in_channels[-1], width, 3, bias_attr=False)
        self.conv1 = ConvBNReLU(width, width, 3, bias_attr=False)
        self.cls = nn.Sequential(nn.Dropout2D(0.1), nn.Conv2D(width, num_classes, 1))
        if len(in_channels) > 1:
            self.aux = nn.Sequential(
                ConvBNReLU(in_channels[0], aux_channels, 3, bias_attr=False),
                nn.Dropout2D(0.1),
                nn.Conv2D(aux_channels, num_classes, 1),
            )
            if not enable_auxiliary_loss:
                # Frozen, so that data parallel training does not wait for gradients that never come.
                for parameter in self.aux.parameters():
                    parameter.stop_gradient = True
        if concat_input:
            self.conv_cat = ConcatConvBNReLU(in_channels[-1] + width, width, 3, bias_attr=False)
        if init != "paddle":
            heads = [self.conv0, self.conv1, self.cls, *([self.aux] if len(in_channels) > 1 else [])]
            init_head([*heads, *([self.conv_cat] if concat_input else [])], init)

    def forward(self, features):
        c5 = features[-1]
        y = self.conv1(self.dnl_block(self.conv0(c5)))
        if self.concat_input:
            y = self.conv_cat([c5, y])
        logits = [self.cls(y)]
        if self.training and self.enable_auxiliary_loss:
            logits.append(self.aux(features[0]))
        return logits
