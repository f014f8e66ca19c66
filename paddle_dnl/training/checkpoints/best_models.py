# SPDX-License-Identifier: Apache-2.0
"""The best checkpoints of a run under names of their own, also when the run goes on in another folder."""

from collections.abc import Iterator
from pathlib import Path

from paddle_dnl.errors import CheckpointError
from paddle_dnl.log import logger
from paddle_dnl.training.checkpoints import checkpoint
from paddle_dnl.training.options import TrainState
from paddle_dnl.weights.safe_pickle import read_pickle

BEST, EMA_BEST = "best_model", "ema_best_model"
NAMES = (BEST, EMA_BEST)
_SCORES = {BEST: "best_miou", EMA_BEST: "best_ema_miou"}


def _candidates(name: str, resumed_from: Path, progress: TrainState) -> Iterator[Path]:
    """Folders that may hold the best model: as named, the one resumed from, or one by number."""
    yield resumed_from.parent / name
    if name == BEST:  # may have been renamed, or is there under its number only
        yield resumed_from
        yield resumed_from.parent / f"iter_{progress.best_iteration}"


def _is_the_best(folder: Path, name: str, progress: TrainState) -> bool:
    """Whether a folder is whole and the one that had the best score, not another run's or a later one."""
    try:
        manifest = checkpoint.verify(folder)
        if manifest is None or (name == BEST and manifest["iteration"] != progress.best_iteration):
            return False
        states = read_pickle(folder / checkpoint.STATES)
    except CheckpointError:
        return False
    return isinstance(states, dict) and states.get(_SCORES[name]) == getattr(progress, _SCORES[name])


def carry_over(resumed_from: Path, save_dir: Path, progress: TrainState) -> None:
    """Makes sure that the best score of a resumed run belongs to a folder in `save_dir`.

    Where there is none of that name, the one of the resumed run is linked; where that is gone too, the score is forgotten,
    so that the next evaluation gives a best model again.

    Args:
        resumed_from: checkpoint folder.
        save_dir: of this run.
        progress: as read from it; its scores are set back.
    """
    for name, score in _SCORES.items():
        value = getattr(progress, score)
        if value < 0 or (save_dir / name / checkpoint.PARAMS).is_file():
            continue
        found = [folder for folder in _candidates(name, resumed_from, progress) if _is_the_best(folder, name, progress)]
        if found:
            checkpoint.link_checkpoint(found[0], save_dir / name)
            logger.info(f"{save_dir / name}: is {found[0]}, the best so far ({value:.4f})")
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
    """For a folder that was deleted with all that was the best: the next evaluation gives a best model again."""
    for name in _SCORES:
        _forget(name, progress)
