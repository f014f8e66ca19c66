# SPDX-License-Identifier: Apache-2.0
"""`Rule` maps modules of a file to modules of the model; rules for parts of a ResNet that several projects share."""

import re
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Rule:
    r"""Target of the modules whose path matches `pattern`.

    Args:
        pattern: regular expression for the whole module path, which is the key without its last part.
        target: the model's module path, with `\1` for groups, or a function of the match; None: drop
            them.
        reason: why they are dropped; goes to the report.
        transpose: transpose the weight matrix.
    """

    pattern: str
    target: str | Callable[[re.Match], str] | None
    reason: str = ""
    transpose: bool = False

    def apply(self, path: str) -> str | None:
        """The model's module path for a matching `path`, else None."""
        match = re.fullmatch(self.pattern, path)
        if not match:
            return None
        return self.target(match) if callable(self.target) else match.expand(self.target or "")


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
