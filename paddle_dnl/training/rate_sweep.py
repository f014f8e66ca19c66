# SPDX-License-Identifier: Apache-2.0
"""Learning-rate range test (`train.py --find_lr`): a short training with a growing rate, and its loss curve.

L. N. Smith, "Cyclical Learning Rates for Training Neural Networks" (2017), the range test; the smoothing and the suggestion,
the rate at the steepest fall, are fastai's.
"""

import contextlib
import csv
import io
import math
from dataclasses import replace
from pathlib import Path

from paddle_dnl.data.loading import load_batches, stack_training
from paddle_dnl.distributed import collectives
from paddle_dnl.distributed.signals import StopSignal
from paddle_dnl.errors import NonFiniteError, UsageError
from paddle_dnl.files.atomic import write_text
from paddle_dnl.log import logger, progress
from paddle_dnl.optim.optimizers import build_optimizer
from paddle_dnl.training.loss_window import LossWindow
from paddle_dnl.training.options import TrainOptions
from paddle_dnl.training.parts import ConfiguredParts
from paddle_dnl.training.sampling import PositionedDataset

import numpy as np
from paddle.optimizer.lr import LambdaDecay

FOLDER, TABLE, CHART = "find_lr", "find_lr.csv", "find_lr.png"
_LOWEST, _HIGHEST = 1e-6, 1.0
_SMOOTHING = 0.9  # decay of the moving average
_DIVERGED = 4.0  # times the lowest smoothed loss


def smoothed(losses: list[float]) -> np.ndarray:
    """Exponential moving average with bias correction."""
    mean, found = 0.0, []
    for i, loss in enumerate(losses, 1):
        mean = _SMOOTHING * mean + (1 - _SMOOTHING) * loss
        found.append(mean / (1 - _SMOOTHING**i))
    return np.asarray(found)


def suggest(rates: list[float], losses: list[float]) -> float:
    """The rate where the smoothed loss falls most steeply over the logarithm of the rate, before its lowest point.

    Raises:
        UsageError: it never falls.
    """
    curve = smoothed(losses)
    lowest = int(curve.argmin())
    slopes = np.gradient(curve, np.log(rates))[: lowest + 1]
    if lowest < 2 or slopes.min() >= 0:
        raise UsageError(
            "--find_lr: the loss never fell; look at the data and the labels, or give --find_lr more steps"
        )
    return float(rates[int(slopes.argmin())])


class _Losses:
    """Stands in for `TrainLog`; keeps the loss of each step."""

    def __init__(self):
        self.losses: list[float] = []

    def reading(self):
        return contextlib.nullcontext()

    def is_due(self, iteration: int) -> bool:
        return True

    def add(self, losses: dict[str, float], steps: int) -> None:
        self.losses.append(sum(losses.values()))

    def line_if_due(self, iteration: int, lr: float) -> None:
        pass


class SweptParts(ConfiguredParts):
    """Components of a configuration with a rate that grows from 1e-6 to 1 in `config.iters` steps."""

    def network(self, train_dataset) -> tuple:
        """Model, losses, growing learning rate and optimizer, as `ConfiguredParts.network`."""
        model, losses, _, _ = super().network(train_dataset)
        factor = (_HIGHEST / _LOWEST) ** (1 / max(1, self.config.iters - 1))
        schedule = LambdaDecay(_LOWEST, lambda step: factor**step)
        return model, losses, schedule, build_optimizer(self.config.optimizer_cfg, model, schedule)


def sweep_options(options: TrainOptions) -> TrainOptions:
    """The options of a sweep: nothing is evaluated, and `save_dir/find_lr` becomes the folder."""
    quiet = {"do_eval": False, "resume_model": None, "use_ema": False, "loggers": (), "use_vdl": False}
    return replace(options, save_dir=str(Path(options.save_dir) / FOLDER), log_iters=1, **quiet)


class RateSweep:
    """Runs the steps of a training without saving weights.

    Args:
        trainer: a `Trainer` with `SweptParts` and `sweep_options`.
    """

    def __init__(self, trainer):
        self._trainer = trainer

    def run(self) -> float:
        """Sweeps; writes the table and the chart; returns the suggested rate.

        Raises:
            UsageError: the loss never falls.
        """
        trainer = self._trainer
        steps, save_dir = trainer.config.iters, trainer.save_dir
        trainer.log, trainer.window, trainer.stop = _Losses(), LossWindow(trainer.accumulate), StopSignal()
        dataset = PositionedDataset(trainer.train_dataset, trainer.seed)
        workers = trainer.options.num_workers
        batches = load_batches(dataset, trainer.sampler, stack_training, workers, dataset.may_read_ahead)
        lowest, losses, rates = math.inf, trainer.log.losses, []
        try:
            trainer.model.train()
            for step in progress(range(1, steps + 1), "find_lr", steps):
                trainer.state.iteration = step
                rate = trainer.optimizer.get_lr()
                try:
                    found = trainer.step(batches)
                except NonFiniteError:
                    break
                rates.append(rate)
                curve = smoothed(losses)[-1]
                lowest = min(lowest, curve)
                if curve > _DIVERGED * lowest or (found is not None and found.stop):
                    break
        finally:
            batches.close()
            trainer.close()
            trainer.stop.restore()
        if collectives.is_main():
            _write(save_dir, rates, losses)
        collectives.finish()  # a rank that ends while another still writes would be reported as lost
        if len(losses) < 10:
            raise UsageError(f"--find_lr: ended after {len(losses)} steps; give it more, at least 20")
        rate = suggest(rates, losses)
        logger.info(
            f"--find_lr: the loss falls most steeply at a rate of {rate:.2g} and is lowest at "
            f"{rates[int(smoothed(losses).argmin())]:.2g}; try --learning_rate {rate:.2g}. Curve: {save_dir / TABLE}"
        )
        return rate


def _write(folder: Path, rates: list[float], losses: list[float]) -> None:
    """The table and, with matplotlib, the chart."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("learning_rate", "loss", "smoothed"))
    writer.writerows(zip(map(repr, rates), map(repr, losses), map(repr, smoothed(losses).tolist()), strict=True))
    write_text(folder / TABLE, text.getvalue())
    try:
        from paddle_dnl.evaluation.curves import draw_rates
    except ImportError:
        logger.warning(f"--find_lr: without matplotlib there is no {CHART}; pip install matplotlib")
        return
    draw_rates(rates, losses, smoothed(losses), folder / CHART)
