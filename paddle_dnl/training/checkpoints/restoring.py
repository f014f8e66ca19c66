# SPDX-License-Identifier: Apache-2.0
"""Restores model, optimizer and EMA from a checkpoint folder, in two steps so that one process can read for all.

`read` verifies the files and takes what they hold into host memory; `restore` puts that into the objects of this process.
"""

import contextlib
import copy
import socket
from dataclasses import dataclass
from pathlib import Path

from paddle_dnl.distributed import collectives
from paddle_dnl.errors import CheckpointError
from paddle_dnl.log import logger
from paddle_dnl.training.checkpoints.checkpoint import (
    EMA,
    OPTIMIZER,
    PARAMS,
    STATES,
    iteration_folders,
    require_optimizer_file,
    verify,
)
from paddle_dnl.training.checkpoints.optimizer_state import move_schedule, require_same_optimizer, restore_optimizer
from paddle_dnl.training.checkpoints.paddleseg_checkpoint import paddleseg_iteration
from paddle_dnl.training.checkpoints.stored_values import require_states
from paddle_dnl.weights.loading import load_weights, read_params
from paddle_dnl.weights.manifest import MANIFEST
from paddle_dnl.weights.safe_pickle import read_pickle


@dataclass
class Contents:
    """What a checkpoint holds, as plain values and NumPy arrays; it can be sent to other processes.

    Args:
        folder: it was read from, for messages.
        states: the plain states; of PaddleSeg's folders just `{"iteration": N}`.
        weights: of the model, with Paddle's table of parameter names.
        optimizer: slots and schedule; None where the optimizer is to start anew.
        optimizer_class: that wrote them; None where that is not known.
        average: EMA weights; None where there are none or none are wanted.
        has_other_schedule: whether this run's learning-rate schedule is not the one whose state was stored: the rate is then
            that of the new one at the iteration.
    """

    folder: Path
    states: dict
    weights: dict
    optimizer: dict | None
    optimizer_class: str | None
    average: dict | None
    has_other_schedule: bool = False


def read(folder: str | Path, *, optimizer, with_average: bool, fresh_optimizer: bool = False) -> Contents:
    """Verifies a checkpoint folder of ours or of PaddleSeg and reads it.

    Args:
        folder: see `checkpoint.find_resume`.
        optimizer: that is to receive the state; one of another class is refused before its file is read.
        with_average: read EMA weights too.
        fresh_optimizer: leave out the optimizer's slots.

    Raises:
        CheckpointError: damaged, incomplete, hostile, or of another optimizer.
    """
    folder = Path(folder)
    try:
        manifest = verify(folder)
    except CheckpointError as error:
        advice = f"No other checkpoint in {folder.parent} is whole"
        for other in reversed(iteration_folders(folder.parent)):
            with contextlib.suppress(CheckpointError):
                if other.resolve() != folder.resolve() and verify(other) is not None:
                    advice = f"Whole is {other} (--resume_model {other})"
                    break
        raise CheckpointError(f"{error}. {advice}") from error
    written_by = (manifest or {}).get("optimizer")
    if not fresh_optimizer:
        require_same_optimizer(folder / OPTIMIZER, written_by, optimizer)
        require_optimizer_file(folder)
    if manifest is None:
        states = {"iteration": paddleseg_iteration(folder)}
        logger.warning(f"{folder}: no {MANIFEST}; resuming weights, optimizer and iteration, as PaddleSeg does")
    else:
        states = read_pickle(folder / STATES)
        require_states(folder / STATES, states, manifest["iteration"])
    has_average = with_average and (folder / EMA).is_file()
    return Contents(
        folder,
        states,
        weights=read_params(folder / PARAMS),
        optimizer=None if fresh_optimizer else read_params(folder / OPTIMIZER),
        optimizer_class=written_by,
        average=read_params(folder / EMA) if has_average else None,
    )


def restore(contents: Contents, *, model, optimizer, ema=None) -> dict:
    """Puts a checkpoint into the objects of a training.

    Args:
        contents: from `read`.
        model, optimizer, ema: receive the state; without slots the schedule goes on at the iteration.

    Returns:
        The plain states.

    Raises:
        CheckpointError: of another model or optimizer; nothing has been trained yet then.
    """
    folder, states, weights = contents.folder, contents.states, contents.weights
    load_weights(model, weights, what=f"{folder / PARAMS}")
    if contents.optimizer is None:
        move_schedule(optimizer, states["iteration"])
        logger.warning(f"{folder}: the optimizer state is reset at iter {states['iteration']}")
    else:
        is_named = contents.optimizer_class is not None
        path = folder / OPTIMIZER
        schedule = copy.deepcopy(vars(optimizer._learning_rate)) if contents.has_other_schedule else {}
        restore_optimizer(path, contents.optimizer, weights, model, optimizer, is_named=is_named)
        if contents.has_other_schedule:
            vars(optimizer._learning_rate).update(schedule)
            move_schedule(optimizer, states["iteration"])
    if ema is not None and contents.average is not None:
        load_weights(ema, contents.average, what=f"EMA weights {folder / EMA}")
    elif ema is not None:
        load_weights(ema, weights, what=f"{folder / PARAMS}")
        logger.warning(f"{folder}: holds no EMA weights; the average is initialised with the model's weights")
    return states


def compare_hosts(chosen: Path | None, save_dir: Path) -> None:
    """Looks for checkpoints that another machine has and rank 0, which chooses for all, has not.

    An elastic launcher may give rank 0 to another machine than before, whose disk is empty.

    Args:
        chosen: rank 0's checkpoint for `--resume_model auto`; None where it has none. Ignored on other ranks.
        save_dir: of the run.

    Raises:
        CheckpointError: on rank 0, which has none while another machine has.
    """
    there = [int(folder.name.removeprefix("iter_")) for folder in iteration_folders(save_dir)]
    everywhere = collectives.all_gather_object((socket.gethostname(), max(there, default=-1)), "choosing a checkpoint")
    if not collectives.is_main():
        return
    (here, own), (host, newest) = everywhere[0], max(everywhere, key=lambda entry: entry[1])
    if newest <= own:
        return
    found = f"{host} has {save_dir}/iter_{newest}"
    if chosen is None:
        raise CheckpointError(
            f"--resume_model auto: {here}, where rank 0 reads, has no checkpoint in {save_dir}, and {found}; start with rank 0 "
            f"there, copy the folder to {here}, or leave --resume_model out to begin anew"
        )
    logger.warning(f"{found}, newer than {chosen} of {here}; rank 0's is resumed")
