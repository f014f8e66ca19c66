# SPDX-License-Identifier: Apache-2.0
"""Rules for parts of a ResNet that several projects name alike."""

import re

from paddle_dnl.weights.convert.mapping import Rule


def _block(m: re.Match) -> str:
    stage, block, kind, number = m.groups()
    inner = {"conv": "_conv", "bn": "_batch_norm"}[kind]
    return f"bb_{int(stage) - 1}_{block}.conv{int(number) - 1}.{inner}"


def _shortcut(m: re.Match) -> str:
    return f"bb_{int(m[1]) - 1}_{m[2]}.short.{'_conv' if m[3] == '0' else '_batch_norm'}"


def stem_position(m: re.Match) -> str:
    """A layer of the deep stem by its place in the Sequential."""
    index = int(m[1])  # a Sequential of three times convolution, norm, ReLU
    return f"conv1_{index // 3 + 1}.{('_conv', '_batch_norm')[index % 3]}"


def residual_stages() -> list[Rule]:
    """Rules for `layer1` to `layer4` in torchvision's naming, which mmseg and the authors of DNL share."""
    return [
        Rule(r"layer([1-4])\.(\d+)\.(conv|bn)([1-3])", _block),
        Rule(r"layer([1-4])\.(\d+)\.downsample\.([01])", _shortcut),
    ]
