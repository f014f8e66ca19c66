# SPDX-License-Identifier: Apache-2.0
"""The DNL authors' code (yinmh17/DNL-Semantic-Segmentation): `nonlocalbn`, `nonlocalnowd`, 3x3 ResNet-101.

Their block has no output convolution and a gate `gamma` on the pairwise term, hence it needs a model with
`dialect: official`; the stem is 64-64-128 wide, hence `stem: 3x3`.
"""

from collections.abc import Iterable

from paddle_dnl.weights.convert.rules import Rule, residual_stages


def backbone_rules(keys: Iterable[str] = ()) -> list[Rule]:
    """The 3x3 ResNet, keys relative to the backbone; ImageNet files lack the `prefix.`."""
    return [
        Rule(r"(?:prefix\.)?conv([123])", r"conv1_\1._conv"),
        Rule(r"(?:prefix\.)?bn([123])", r"conv1_\1._batch_norm"),
        *residual_stages(),
        Rule(r"fc|avgpool", None, "ImageNet classifier"),
    ]


def _conv_norm(source: str, target: str) -> list[Rule]:
    return [Rule(rf"{source}\.0", f"{target}._conv"), Rule(rf"{source}\.1\.0", f"{target}._batch_norm")]


def dnlnet_rules() -> list[Rule]:
    """The head `nlm` with its block `ctb`, and the auxiliary head `dsn`."""
    block = {"conv_query": "theta", "conv_key": "phi", "conv_value": "g", "conv_mask": "conv_mask"}
    return [
        *_conv_norm(r"nlm\.conva", "head.conv0"),
        *_conv_norm(r"nlm\.convb", "head.conv1"),
        *_conv_norm(r"nlm\.bottleneck", "head.conv_cat"),
        Rule(r"nlm\.bottleneck\.3", "head.cls.1"),
        *[Rule(rf"nlm\.ctb\.{name}", f"head.dnl_block.{ours}") for name, ours in block.items()],
        Rule(r"nlm\.ctb", "head.dnl_block"),  # gamma, which belongs to the block itself
        Rule(r"dsn\.0\.conv", "head.aux.0._conv"),
        Rule(r"dsn\.0\.bn_relu\.0", "head.aux.0._batch_norm"),
        Rule(r"dsn\.2", "head.aux.2"),
    ]
