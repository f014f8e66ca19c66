# SPDX-License-Identifier: Apache-2.0
"""OpenMMLab: DNL and DMNet segmentors of mmsegmentation, ImageNet backbones (`resnet50_v1c`) of mmcv.

Their convolutions have PyTorch's layout, which is Paddle's too, so that only names change.
"""

from collections.abc import Iterable

from paddle_dnl.weights.convert.rules import Rule, residual_stages, stem_position


def backbone_rules(keys: Iterable[str] = ()) -> list[Rule]:
    """ResNet v1c, keys relative to the backbone."""
    return [
        Rule(r"stem\.([013467])", stem_position),
        *residual_stages(),
        Rule(r"fc", None, "ImageNet classifier"),
    ]


def conv_module(source: str, target: str) -> list[Rule]:
    """Rules for mmcv's `ConvModule` (`conv`, `bn`) in place of our `ConvBNReLU`."""
    return [Rule(rf"{source}\.conv", rf"{target}._conv"), Rule(rf"{source}\.bn", rf"{target}._batch_norm")]


def dnlnet_rules() -> list[Rule]:
    """`DNLHead` with its auxiliary `FCNHead`."""
    return [
        *conv_module(r"decode_head\.convs\.([01])", r"head.conv\1"),
        *conv_module(r"decode_head\.conv_cat", r"head.conv_cat"),
        Rule(r"decode_head\.dnl_block\.((?:theta|phi|g)(?:\.0)?)\.conv", r"head.dnl_block.\1"),
        *conv_module(r"decode_head\.dnl_block\.conv_out", r"head.dnl_block.conv_out"),
        Rule(r"decode_head\.dnl_block\.conv_mask", r"head.dnl_block.conv_mask"),
        Rule(r"decode_head\.conv_seg", r"head.cls.1"),
        *conv_module(r"auxiliary_head\.convs\.0", r"head.aux.0"),
        Rule(r"auxiliary_head\.conv_seg", r"head.aux.2"),
    ]


def dmnet_rules() -> list[Rule]:
    """`DMHead` with its auxiliary `FCNHead`."""
    module = r"decode_head\.dcm_modules\.(\d+)"
    return [
        Rule(rf"{module}\.(filter_gen_conv|norm)", r"dcm_modules.\1.\2"),
        *conv_module(rf"{module}\.(input_redu_conv|fusion_conv)", r"dcm_modules.\1.\2"),
        *conv_module(r"decode_head\.bottleneck", r"bottleneck"),
        Rule(r"decode_head\.conv_seg", r"cls"),
        *conv_module(r"auxiliary_head\.convs\.0", r"fcn_head.0"),
        Rule(r"auxiliary_head\.conv_seg", r"fcn_head.1"),
    ]


# PaddleSeg's DMNet has biases in front of batch norms, where mmseg has none.
DMNET_ZERO = (r"(dcm_modules\.\d+\.(input_redu_conv|fusion_conv)|bottleneck|fcn_head\.0)\._conv\.bias",)
