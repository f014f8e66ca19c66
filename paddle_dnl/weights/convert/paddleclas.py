# SPDX-License-Identifier: Apache-2.0
"""PaddleClas since 2.2 (`legendary_models/resnet.py`): ResNet and ResNet_vd with all blocks in one numbered row.

Older files of PaddleClas have PaddleSeg's names.
"""

import itertools
import re
from collections.abc import Iterable

from paddle_dnl.weights.convert.rules import Rule

_STAGES = {8: (2, 2, 2, 2), 16: (3, 4, 6, 3), 33: (3, 4, 23, 3), 50: (3, 8, 36, 3)}
_INNER = {"conv": "_conv", "bn": "_batch_norm"}


def backbone_rules(keys: Iterable[str] = ()) -> list[Rule]:
    """Keys relative to the backbone; the number of blocks in `keys` says where a stage begins."""
    blocks = {int(match[1]) for match in (re.match(r"blocks\.(\d+)\.", key) for key in keys) if match}
    starts = [0, *itertools.accumulate(_STAGES.get(len(blocks), ()))]

    def place(match: re.Match) -> str:
        number = int(match[1])
        stage = sum(number >= start for start in starts) - 1
        return f"bb_{stage}_{number - starts[stage]}.{match[2]}.{_INNER[match[3]]}"

    return [
        Rule(r"stem\.([012])\.(conv|bn)", lambda m: f"conv1_{int(m[1]) + 1}.{_INNER[m[2]]}"),
        Rule(r"blocks\.(\d+)\.(conv[012]|short)\.(conv|bn)", place),
        Rule(r"fc", None, "ImageNet classifier"),
    ]
