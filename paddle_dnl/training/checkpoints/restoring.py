# SPDX-License-Identifier: Apache-2.0
"""Restores model, optimizer and EMA from a checkpoint folder, in two steps so that one process can read for all.

`read` verifies the files and reads them into host memory; `restore` loads that into the objects of this process.
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
    """Content of a checkpoint as plain values and NumPy arrays, which can be sent to other processes.

    Args:
        folder: the source, for messages.
        states: the fields of `TrainState`; for folders of PaddleSeg only `{"iteration": N}`.
        weights: of the model, with Paddle's table of parameter names.
        optimizer: slots and schedule; None to start with new slots.
        optimizer_class: name of the class that wrote them; None if unknown.
        average: EMA weights; None if absent or not wanted.
        has_other_schedule: whether this run has another learning-rate schedule than the checkpoint; the rate is then that of
            the new schedule at the iteration.
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
        optimizer: receives the state later; another class is refused before the file is read.
        with_average: read EMA weights too.
        fresh_optimizer: leave out the optimizer's slots.

    Raises:
        CheckpointError: damaged, incomplete, unsafe, or of another optimizer.
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
    """Loads a checkpoint into the objects of a training.

    Args:
        contents: from `read`.
        model, optimizer, ema: receive the state; without slots the schedule is advanced to the iteration.

    Returns:
        The plain states.

    Raises:
        CheckpointError: of another model or optimizer.
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
    """Reports newer checkpoints on other machines than rank 0's, which chooses for all.

    An elastic launcher may move rank 0 to a machine with an empty disk.

    Args:
        chosen: rank 0's checkpoint for `--resume_model auto`, or None. Ignored on other ranks.
        save_dir: of the run.

    Raises:
        CheckpointError: on rank 0, if it has none and another machine has one.
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
