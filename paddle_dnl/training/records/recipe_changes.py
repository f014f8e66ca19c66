# SPDX-License-Identifier: Apache-2.0
"""Differences between the configurations of a resumed run and of its checkpoint: logged, or refused."""

from collections.abc import Iterator
from pathlib import Path

from paddle_dnl.config.reading import read_yaml_mapping
from paddle_dnl.errors import CheckpointError, ConfigError
from paddle_dnl.log import logger

_SHOWN = 30
# Start weights are replaced by the checkpoint's; folders may move; file names are compared by the layout of the run.
_NO_PART_OF_THE_RECIPE = ("pretrained", "pretrained_sha256", "dataset_root", "train_path", "val_path", "test_path")
# Transforms that determine the network's input; with other values the trained weights compute something else.
_PREPROCESSING = ("Normalize", "SubtractMeanBGR")


def _flat(value, key: str = "") -> Iterator[tuple[str, object]]:
    if isinstance(value, dict) and value:
        for name, item in value.items():
            yield from _flat(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for i, item in enumerate(value):
            yield from _flat(item, f"{key}.{i}")
    else:
        yield key, value


def differences(before: dict, now: dict) -> dict[str, tuple]:
    """Dotted keys whose values differ -> (before, now); None for a missing key."""
    old, new = dict(_flat(before)), dict(_flat(now))
    return {
        key: (old.get(key), new.get(key))
        for key in sorted({*old, *new})
        if old.get(key) != new.get(key) and not any(part in _NO_PART_OF_THE_RECIPE for part in key.split("."))
    }


def _preprocessing(config: dict) -> list:
    """Normalisation of both datasets, in the order of their keys."""
    found = []
    for section in ("train_dataset", "val_dataset"):
        steps = (config.get(section) or {}).get("transforms") or []
        found.append([step for step in steps if step.get("type") in _PREPROCESSING])
    return found


def changes_function(key: str) -> bool:
    """Whether a key, apart from the normalisation, changes what the trained weights compute or mean."""
    parts = key.split(".")
    return parts[0] == "model" or parts[-1] in ("num_classes", "ignore_index", "img_channels", "class_names")


def review(folder: Path, config: dict, allowed: bool) -> bool:
    """Compares a configuration with the one stored in the checkpoint that is resumed; logs each difference.

    Args:
        folder: the checkpoint; without `config.yml`, as from PaddleSeg, nothing is compared.
        config: the resolved configuration of this run.
        allowed: continue with another network, other classes or another normalisation.

    Returns:
        Whether the learning-rate schedule has changed.

    Raises:
        CheckpointError: network, classes or normalisation differ without `allowed`.
    """
    path = Path(folder) / "config.yml"
    if not path.is_file():
        return False
    try:
        before = read_yaml_mapping(path)
    except ConfigError as error:
        logger.warning(f"{error}; what has changed since is not known")
        return False
    found = differences(before, config)
    if not found:
        return False
    lines = [f"  {key}: {old!r} -> {new!r}" for key, (old, new) in found.items()]
    more = [f"  ... and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    logger.warning("\n".join([f"resuming with another configuration than {path}:", *lines[:_SHOWN], *more]))
    changed = "iters" in found or any(key.startswith("lr_scheduler.") for key in found)
    has_other_schedule = changed and "lr_scheduler" in config  # a program's own optimizer keeps its schedule
    if has_other_schedule:
        logger.warning(
            f"from this iteration on the learning rate follows the new schedule of {config['iters']} iterations"
        )
    refused = [key for key in found if changes_function(key)]
    if _preprocessing(before) != _preprocessing(config):
        refused.append("the normalisation of the transforms")
    if refused and not allowed:
        raise CheckpointError(
            f"--resume_model {folder}: {', '.join(refused[:5])} differ from the checkpoint's, so that its weights would "
            "compute something else; undo the change, start anew from its weights (--opts model.pretrained=...), or give "
            "--allow_recipe_changes"
        )
    return has_other_schedule


def require_remaining(folder: Path, iteration: int, iters: int) -> None:
    """Refuses a schedule that ends before the checkpoint.

    Raises:
        CheckpointError: fewer iterations than the checkpoint has done.
    """
    if iters < iteration:
        raise CheckpointError(
            f"--resume_model {folder}: it has done {iteration} iterations, more than the {iters} of this run; give more "
            "--iters"
        )
