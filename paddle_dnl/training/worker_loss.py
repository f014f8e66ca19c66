# SPDX-License-Identifier: Apache-2.0
"""Saves the last complete step when a data loading process was killed, for instance for lack of memory."""

from paddle_dnl.data.loading import WorkerError
from paddle_dnl.distributed import collectives
from paddle_dnl.log import logger


def save_and_explain(trainer, error: WorkerError) -> WorkerError:
    """Saves the last complete step of a single-process training and returns the error to raise.

    With several processes nothing is saved: a save is a collective operation, and the other ranks wait in another one. With
    gradient accumulation the batch statistics may include part of the step that is repeated.

    Args:
        trainer: the `Trainer`, whose step or evaluation raised `error`.
        error: from `load_batches`.
    """
    iteration = trainer.state.iteration
    if collectives.world_size() > 1 or iteration == 0:
        return error
    trainer.writer.wait()
    folder = trainer.save_dir / f"iter_{iteration}"
    if folder not in trainer.saved:
        is_save_point = iteration % trainer.options.save_interval == 0
        trainer.state.evaluation_due = trainer.val_dataset is not None and is_save_point
        trainer.save(None)
        trainer.writer.wait()
        logger.info(f"saved {folder}")
    return WorkerError(f"{error}. The training is saved at iter {iteration}; --resume_model auto continues")
