# SPDX-License-Identifier: Apache-2.0
"""The folders `best_model` and `ema_best_model` of a run, also of one that is resumed in another folder."""

from pathlib import Path

from paddle_dnl.errors import CheckpointError
from paddle_dnl.log import logger
from paddle_dnl.training.checkpoints import checkpoint
from paddle_dnl.training.options import TrainState
from paddle_dnl.weights.safe_pickle import read_pickle

BEST, EMA_BEST = "best_model", "ema_best_model"
NAMES = (BEST, EMA_BEST)
_SCORES = {BEST: "best_miou", EMA_BEST: "best_ema_miou"}


def _is_the_best(folder: Path, name: str, progress: TrainState) -> bool:
    """Whether a folder is an undamaged checkpoint with exactly the best score and iteration in `progress`."""
    try:
        manifest = checkpoint.verify(folder)
        if manifest is None or (name == BEST and manifest["iteration"] != progress.best_iteration):
            return False
        states = read_pickle(folder / checkpoint.STATES)
    except CheckpointError:
        return False
    return isinstance(states, dict) and states.get(_SCORES[name]) == getattr(progress, _SCORES[name])


def carry_over(resumed_from: Path, save_dir: Path, progress: TrainState) -> None:
    """Makes sure that `save_dir` holds the checkpoint of the best score of a resumed run.

    If it does not, the folder of the resumed run is linked; if that is missing too, the score is reset, so that the next
    evaluation saves a best model again.

    Args:
        resumed_from: checkpoint folder.
        save_dir: folder of this run.
        progress: state read from the checkpoint; its scores may be reset.
    """
    for name, score in _SCORES.items():
        value = getattr(progress, score)
        if value < 0 or (save_dir / name / checkpoint.PARAMS).is_file():
            continue
        candidates = [resumed_from.parent / name]
        if name == BEST:  # it may have been renamed, or exist under its number only
            candidates += [resumed_from, resumed_from.parent / f"iter_{progress.best_iteration}"]
        found = next((folder for folder in candidates if _is_the_best(folder, name, progress)), None)
        if found is not None:
            checkpoint.link_checkpoint(found, save_dir / name)
            logger.info(f"{save_dir / name}: is {found}, the best so far ({value:.4f})")
            continue
        logger.warning(
            f"{save_dir}: no {name} here, and the one with mIoU {value:.4f} is not found; the best score is reset"
        )
        _forget(name, progress)


def _forget(name: str, progress: TrainState) -> None:
    setattr(progress, _SCORES[name], -1.0)
    if name == BEST:
        progress.best_iteration = -1


def forget_all(progress: TrainState) -> None:
    """Resets the best scores after the folder was deleted, so that the next evaluation saves a best model again."""
    for name in _SCORES:
        _forget(name, progress)
