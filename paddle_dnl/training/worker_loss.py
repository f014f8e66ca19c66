# SPDX-License-Identifier: Apache-2.0
"""Saves the last complete step when a data loading process was killed, for lack of memory or shared memory."""

import traceback

from paddle_dnl.data.loading import WorkerError
from paddle_dnl.distributed import collectives
from paddle_dnl.log import logger


def save_and_explain(trainer, error: WorkerError) -> WorkerError:
    """Saves the last whole step of a training in one process and returns the error to raise.

    With several processes nothing is saved: a save is a collective operation, and the others are in another one. With
    gradient accumulation the running statistics may have seen a part of the step that is done again.

    Args:
        trainer: the `Trainer`, whose step or evaluation raised `error`.
        error: from `load_batches`.
    """
    if collectives.world_size() > 1:
        return error
    if any(frame.name == "_step" for frame in traceback.extract_tb(error.__traceback__)):
        trainer.state.iteration -= 1  # counted before its data came
    trainer.writer.wait()
    iteration = trainer.state.iteration
    folder = trainer.save_dir / f"iter_{iteration}"
    if iteration > 0 and folder not in trainer.saved:
        trainer.state.evaluation_due = (
            trainer.val_dataset is not None and iteration % trainer.options.save_interval == 0
        )
        trainer._save(None)
        trainer.writer.wait()
        logger.info(f"saved {folder}")
    if iteration == 0:
        return error
    return WorkerError(f"{error}. The training is saved at iter {iteration}; --resume_model auto continues")
