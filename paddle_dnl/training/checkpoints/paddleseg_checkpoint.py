# SPDX-License-Identifier: Apache-2.0
"""Recognises checkpoint folders of PaddleSeg and their iteration.

Up to 2.8 `iter_N` holds weights and optimizer, and only its name tells the iteration. From 2.9 on there is a `model.pdstates`
beside them after an evaluation: `{"mIoU": .., "Acc": .., "iter": N}`; with `uniform_output_enabled` also an exported model and
`model.info.json`. `best_model` has no optimizer.
"""

import re
from pathlib import Path

from paddle_dnl.config.choices import CONFIG_NAME
from paddle_dnl.errors import CheckpointError
from paddle_dnl.weights.safe_pickle import read_pickle

_STATES = "model.pdstates"
_KEYS = {"mIoU", "Acc", "iter"}


def _states(folder: Path) -> dict | None:
    if not (folder / _STATES).is_file():
        return None
    try:
        states = read_pickle(folder / _STATES)
    except CheckpointError:
        return None
    return states if isinstance(states, dict) and set(states) == _KEYS else None


def is_of_paddleseg(folder: Path) -> bool:
    """Whether the states in a folder without a manifest are PaddleSeg's, and so nothing of ours is lost."""
    return _states(folder) is not None and not (folder / CONFIG_NAME).exists()


def paddleseg_iteration(folder: Path) -> int:
    """The iteration of a folder of PaddleSeg, from its states or its name.

    Raises:
        CheckpointError: neither tells.
    """
    states = _states(folder)
    if states is not None and type(states["iter"]) is int:
        return states["iter"]
    number = re.search(r"_(\d+)$", folder.resolve().name)
    if number is None:
        raise CheckpointError(f"{folder}: has no manifest.json, and its name does not end in _<iteration>")
    return int(number.group(1))
