# SPDX-License-Identifier: Apache-2.0
"""timm's `resnet18d` to `resnet152d`: deep stem and average-pooled shortcuts, hence `stem: vd`.

`resnet18d` and `resnet34d` do not project in the very first block: `project_first: False`.
"""

from collections.abc import Iterable

from paddle_dnl.weights.convert.rules import Rule, residual_stages, stem_position


def backbone_rules(keys: Iterable[str] = ()) -> list[Rule]:
    """ResNet-D, keys relative to the backbone; its shortcuts count the average pool as member 0."""
    return [
        Rule(r"conv1\.([01346])", stem_position),
        Rule(r"bn1", "conv1_3._batch_norm"),
        Rule(r"layer([1-4])\.(\d+)\.downsample\.1", lambda m: f"bb_{int(m[1]) - 1}_{m[2]}.short._conv"),
        Rule(r"layer([1-4])\.(\d+)\.downsample\.2", lambda m: f"bb_{int(m[1]) - 1}_{m[2]}.short._batch_norm"),
        *residual_stages()[:1],
        Rule(r"fc", None, "ImageNet classifier"),
    ]
