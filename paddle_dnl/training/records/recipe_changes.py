# SPDX-License-Identifier: Apache-2.0
"""Differences between the configurations of a resumed run and of its checkpoint: logged, or refused."""

from pathlib import Path

from paddle_dnl.config.choices import CONFIG_NAME
from paddle_dnl.config.comparison import changes_function, differences, preprocessing
from paddle_dnl.config.reading import read_yaml_mapping
from paddle_dnl.errors import CheckpointError, ConfigError
from paddle_dnl.log import logger

_SHOWN = 30


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
    path = Path(folder) / CONFIG_NAME
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
    if any(preprocessing(before, key) != preprocessing(config, key) for key in ("train_dataset", "val_dataset")):
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
