# SPDX-License-Identifier: Apache-2.0
"""torchvision's ResNet and that of `paddle.vision.models`: the same names, a 7x7 stem, hence `stem: v1`."""

from collections.abc import Iterable

from paddle_dnl.weights.convert.rules import Rule, residual_stages


def backbone_rules(keys: Iterable[str] = ()) -> list[Rule]:
    """ResNet-18 to 152, keys relative to the backbone."""
    return [
        Rule(r"conv1", "conv1_1._conv"),
        Rule(r"bn1", "conv1_1._batch_norm"),
        *residual_stages(),
        Rule(r"fc", None, "ImageNet classifier"),
    ]
