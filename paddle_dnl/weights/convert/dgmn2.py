# SPDX-License-Identifier: Apache-2.0
"""DGMN2 (fudan-zvg/DGMN2): segmentors with four decoders, and ImageNet classification files.

Our modules carry the original names. PyTorch stores a Linear's matrix as [out, in], Paddle as [in, out]:
exactly the five Linear layers of a block are transposed, by name.
"""

from collections.abc import Iterable

from paddle_dnl.weights.convert.rules import Rule

_LINEAR = r"block[1-4]\.\d+\.(?:attn\.(?:qkv|proj|conv_offset)|mlp\.fc[12])"


def backbone_rules(keys: Iterable[str] = ()) -> list[Rule]:
    """The transformer, keys relative to the backbone."""
    return [
        Rule(rf"({_LINEAR})", r"\1", transpose=True),
        Rule(r"(block[1-4]\..+|patch_embed[1-4]\..+)", r"\1"),
        Rule(r"head", None, "ImageNet classifier"),
    ]


def head_rules() -> list[Rule]:
    """Necks and decode heads: all four kinds keep their names."""
    return [Rule(r"((?:neck|decode_head)\..+)", r"\1")]
