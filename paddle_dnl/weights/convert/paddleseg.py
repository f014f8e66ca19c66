# SPDX-License-Identifier: Apache-2.0
"""PaddleSeg and DMNet_paddle: the same framework and the same names.

The converter still checks every tensor; loading such a file directly works as well.
"""

from collections.abc import Iterable

from paddle_dnl.weights.convert.rules import Rule


def backbone_rules(keys: Iterable[str] = ()) -> list[Rule]:
    """ResNet_vd, keys relative to the backbone."""
    return [
        Rule(r"(conv1_[123]\..+|bb_[0-3]_\d+\..+)", r"\1"),
        Rule(r"(?:out|fc)", None, "ImageNet classifier"),
    ]


def head_rules() -> list[Rule]:
    """DNLNet's head, DMNet's modules."""
    return [Rule(r"((?:head|dcm_modules|bottleneck|fcn_head)\..+|bottleneck|cls)", r"\1")]
