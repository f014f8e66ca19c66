# SPDX-License-Identifier: Apache-2.0
"""Describes weights by their names, for error messages."""

import re
from collections.abc import Iterable

_DEPTHS = {(2, 2, 2, 2): "18", (3, 4, 6, 3): "50", (3, 4, 23, 3): "101", (3, 8, 36, 3): "152"}
_DGMN2 = {(2, 2, 2, 2): "Tiny", (3, 4, 6, 3): "Small", (3, 4, 18, 3): "Medium", (3, 8, 27, 3): "Large"}


def _counts(keys: Iterable[str], pattern: str) -> tuple[int, ...]:
    """Number of blocks in each stage, where `pattern` captures stage and block."""
    stages: dict[int, set] = {}
    for key in keys:
        if match := re.search(pattern, key):
            stages.setdefault(int(match[1]), set()).add(int(match[2]))
    return tuple(len(stages[s]) for s in sorted(stages))


def _backbone(keys: list[str]) -> str:
    if any(re.search(r"(^|\.)patch_embed1\.", k) for k in keys):
        counts = _counts(keys, r"(?:^|\.)block([1-4])\.(\d+)\.")
        return f"DGMN2-{_DGMN2[counts]}" if counts in _DGMN2 else "DGMN2 of no published depth"
    paddle = any(re.search(r"(^|\.)bb_\d_\d+\.", k) for k in keys)
    counts = _counts(keys, r"(?:^|\.)bb_([0-3])_(\d+)\." if paddle else r"(?:^|\.)layer([1-4])\.(\d+)\.")
    blocks = {match[1] for match in (re.match(r"blocks\.(\d+)\.", k) for k in keys) if match}
    if not counts and blocks:
        counts = next((c for c in _DEPTHS if sum(c) == len(blocks)), (len(blocks),))
    if not counts:
        return ""
    third = "conv2." if paddle or blocks else "conv3."  # only bottleneck blocks have a third convolution
    depth = _DEPTHS.get(counts, f"of {counts} blocks")
    if depth == "50" and not any(f".{third}" in k for k in keys):
        depth = "34"
    return f"ResNet-{depth}"


_HEADS = (
    (r"^decode_head\.dnl_block\.", "OpenMMLab DNL"),
    (r"^decode_head\.dcm_modules\.", "OpenMMLab DMNet"),
    (r"^nlm\.ctb\.", "DNL by its authors (official_dnl)"),
    (r"^decode_head\.(mlahead|conv_0|conv_seg)|^neck\.", "segmentor in OpenMMLab's naming"),
    (r"^head\.dnl_block\.", "DNLNet in PaddleSeg's naming"),
    (r"^dcm_modules\.", "DMNet in PaddleSeg's naming"),
    (r"(^|\.)(fc|head|out)\.weight$", "ImageNet classifier"),
)


def looks_like(keys: Iterable[str]) -> str:
    """One phrase, for instance `OpenMMLab DNL with ResNet-101`."""
    keys = list(keys)
    head = next((name for pattern, name in _HEADS if any(re.search(pattern, k) for k in keys)), "")
    backbone = _backbone(keys)
    if head and backbone:
        return f"{head} with {backbone}"
    if backbone:
        return f"a bare {backbone}"
    return head or f"nothing known here (first names: {', '.join(keys[:3]) or 'none'})"
