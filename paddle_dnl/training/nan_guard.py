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
    """Names the newest undamaged checkpoint and what may help."""
    where: Path | str = "none yet"
    for folder in reversed(saved):
        with contextlib.suppress(CheckpointError):
            checkpoint.verify(folder)
            where = folder
            break
    return f"Last good checkpoint: {where}. A lower learning rate or --precision fp32 may help."


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
    """Stops all ranks with the same message if `found` has non-finite losses or gradients.

    With several ranks the gradients are averaged, so that they are bad on all. With loss scaling they are not checked here, since
    it skips such updates.

    Args:
        trainer: a running `Trainer`.
        found: result of reading its window.

    Raises:
        NonFiniteError: names the losses of any rank, or the gradients.
    """
    has_finite_losses = np.isfinite(list(found.losses.values())).all()
    if has_finite_losses and found.finite_gradients:
        return
    trainer.writer.wait()  # so that all ranks name the same checkpoint
    iteration, saved = trainer.state.iteration, trainer.saved
    if has_finite_losses:
        bad = bad_names(gradients(trainer.model))
        if bad:
            text = f"iter {iteration}: the gradient of {_listed(bad)} is NaN or infinite; the weights were not changed"
            raise NonFiniteError(f"{text}. {_advice(saved)}")
        return
    # The first batch of each rank with a non-finite loss, and weights that were not finite before.
    problem, first = "", trainer.window.first_bad()
    if first is not None:
        index, losses = first
        step = (iteration - found.steps) * trainer.accumulate + index
        iteration = step // trainer.accumulate + 1
        values = ", ".join(f"{name} = {value}" for name, value in losses.items() if not np.isfinite(value))
        problem = (
            f"{values} in the batch of {_listed(sample_names(trainer.train_dataset, trainer.sampler.batch(step)))}"
        )
        weights = bad_names(trainer.model.state_dict().items())
        if weights:
            problem += f"; the weights {_listed(weights)} hold NaN or infinity"
    iterations, problems = zip(*collectives.all_gather_object((iteration, problem)), strict=True)
    several = len(problems) > 1
    texts = [text + (f" on rank {rank}" if several else "") for rank, text in enumerate(problems) if text]
    raise NonFiniteError(f"iter {min(iterations)}: {'; '.join(texts)}. {_advice(saved)}")
