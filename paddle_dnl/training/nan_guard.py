# SPDX-License-Identifier: Apache-2.0
"""NaN guard: stops a training with NaN or infinity before they reach a checkpoint, and names the tensors.

Losses and gradients are checked on the device. The host reads the result where it reads losses: at log lines, before each
save, and every few seconds (`training/loss_window.py`).

| where | what happens |
|---|---|
| input | the run stops; the message has the file (`training/sampling.py`) |
| loss, of any rank | the run stops at the next read; the message has step, loss, rank, pictures, and weights bad before |
| gradient, without loss scaling | checked at a read, before the update: the run stops; the message has the parameters |
| gradient, with loss scaling | the update is skipped and the scale halved; at a scale below 1 the run stops |
| weight, buffer, optimizer slot, average | no checkpoint is written, the run stops; the message has the tensor |
"""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from paddle_dnl.distributed import collectives
from paddle_dnl.errors import CheckpointError, NonFiniteError
from paddle_dnl.training.bad_values import bad_names
from paddle_dnl.training.checkpoints import checkpoint
from paddle_dnl.training.loss_window import Found
from paddle_dnl.training.sampling import sample_names

import numpy as np
import paddle

_SHOWN = 4


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def gradients(model: paddle.nn.Layer) -> Iterator[tuple[str, paddle.Tensor]]:
    """Names and gradients of the parameters that have one."""
    return ((name, p.grad) for name, p in model.named_parameters() if p.grad is not None)


def _advice(saved: Sequence[Path]) -> str:
    """The newest undamaged checkpoint, and what may help."""
    where: Path | str = "none yet"
    for folder in reversed(saved):
        with contextlib.suppress(CheckpointError):
            checkpoint.verify(folder)
            where = folder
            break
    return f"Last good checkpoint: {where}. A lower learning rate or --precision fp32 may help."


def loss_problem(losses: dict[str, float], files: list[str], model: paddle.nn.Layer) -> str:
    """Names the losses of one batch that are not finite, and weights that were not finite before; empty if all are finite.

    Args:
        losses: values of the batch by name.
        files: names of the pictures in it.
        model: with the weights that were used.
    """
    bad = [f"{name} = {value}" for name, value in losses.items() if not np.isfinite(value)]
    if not bad:
        return ""
    text = f"{', '.join(bad)} in the batch of {_listed(files)}"
    weights = bad_names(model.state_dict().items())
    if weights:
        text += f"; the weights {_listed(weights)} hold NaN or infinity"
    return text


def require_finite_losses(iteration: int, means: dict[str, float], problem: str, saved: Sequence[Path]) -> None:
    """Stops all ranks with the same message when a loss of any of them is not finite.

    Args:
        iteration: for the message.
        means: over the ranks, so that every rank knows of a bad loss on any.
        problem: as from `loss_problem`, of this rank.
        saved: checkpoints of this run, oldest first.

    Raises:
        NonFiniteError: names losses and rank.
    """
    if np.isfinite(list(means.values())).all():
        return
    everywhere = collectives.all_gather_object(problem)
    several = len(everywhere) > 1
    found = [text + (f" on rank {rank}" if several else "") for rank, text in enumerate(everywhere) if text]
    raise NonFiniteError(f"iter {iteration}: {'; '.join(found)}. {_advice(saved)}")


def require_finite_gradients(iteration: int, model: paddle.nn.Layer, scaler, saved: Sequence[Path]) -> None:
    """Stops before an update with non-finite gradients; does nothing with loss scaling, which skips such updates.

    With several ranks the gradients are averaged, so that all ranks stop here together.

    Raises:
        NonFiniteError: names the parameters.
    """
    if not scaler.skips:
        bad = bad_names(gradients(model))
        if bad:
            text = f"iter {iteration}: the gradient of {_listed(bad)} is NaN or infinite; the weights were not changed"
            raise NonFiniteError(f"{text}. {_advice(saved)}")


def require_useful_scale(iteration: int, model: paddle.nn.Layer, scaler, saved: Sequence[Path]) -> None:
    """Stops when gradients overflow at a loss scale below 1, where scaling cannot be the cause.

    Raises:
        NonFiniteError: names the parameters.
    """
    if scaler.skipped and scaler.scale_now < 1:
        bad = _listed(bad_names(gradients(model)))
        text = f"iter {iteration}: the gradient of {bad} is NaN or infinite at a loss scale of {2 * scaler.scale_now:g}"
        raise NonFiniteError(f"{text}; all updates would be skipped. {_advice(saved)}")


def require_finite(trainer, found: Found) -> None:
    """Stops the run if `found` has non-finite losses or gradients, and names them.

    Args:
        trainer: a running `Trainer`.
        found: result of reading its window.

    Raises:
        NonFiniteError: losses of any rank, or gradients.
    """
    iteration, problem = trainer.state.iteration, ""
    has_finite_losses = np.isfinite(list(found.losses.values())).all()
    if has_finite_losses and found.finite_gradients:
        return
    trainer.writer.wait()  # so that all ranks name the same checkpoint
    if not has_finite_losses:
        bad = trainer.window.first_bad()
        if bad is not None:
            index, losses = bad
            step = (iteration - found.steps) * trainer.accumulate + index
            iteration = step // trainer.accumulate + 1
            files = sample_names(trainer.train_dataset, trainer.sampler.batch(step))
            problem = loss_problem(losses, files, trainer.model)
        iteration = min(collectives.all_gather_object(iteration))  # the same message on all ranks
        require_finite_losses(iteration, found.losses, problem, trainer.saved)
    if not found.finite_gradients:
        require_finite_gradients(iteration, trainer.model, trainer.scaler, trainer.saved)
