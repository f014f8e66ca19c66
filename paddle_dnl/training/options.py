# SPDX-License-Identifier: Apache-2.0
"""TrainOptions: flags of a run. TrainState: what a checkpoint stores besides weights and optimizer."""

import operator
from dataclasses import dataclass, field

from paddle_dnl.config.choices import LARGEST_SEED
from paddle_dnl.errors import UsageError


@dataclass
class TrainOptions:
    """Flags of train.py; everything else is in the configuration.

    Raises:
        UsageError: `seed` is no whole number from 0 to `LARGEST_SEED`.
    """

    save_dir: str = "./output"
    do_eval: bool = False
    use_vdl: bool = False
    use_ema: bool = False
    save_interval: int = 1000
    log_iters: int = 10
    num_workers: int = 0
    keep_checkpoint_max: int = 5
    early_stop_intervals: int | None = None
    resume_model: str | None = None
    fresh_optimizer: bool = False
    seed: int | None = None
    repeats: int = 1
    precision: str = "fp32"
    amp_level: str = "O1"
    data_format: str = "NCHW"  # see `amp.set_data_format`
    to_static_training: bool = False
    profiler_options: str | None = None
    skip_bad_samples: bool = False
    allow_recipe_changes: bool = False
    scale_lr: int | None = None  # see `batch_scaling.scale_rates`
    print_mem_info: bool = True
    loggers: tuple[str, ...] = ()

    def __post_init__(self):
        if self.seed is None:
            return
        try:
            fits = 0 <= operator.index(self.seed) <= LARGEST_SEED
        except TypeError:
            fits = False
        if not fits:
            raise UsageError(f"seed: expected a whole number from 0 to {LARGEST_SEED}, got {self.seed!r}")

    @classmethod
    def of(cls, args) -> "TrainOptions":
        """From an object with these attributes, such as the parsed command line."""
        return cls(**{name: getattr(args, name) for name in cls.__dataclass_fields__})

    @property
    def all_loggers(self) -> tuple[str, ...]:
        """`loggers`, with `visualdl` if `use_vdl` is set."""
        return tuple(dict.fromkeys((*self.loggers, *(("visualdl",) if self.use_vdl else ()))))


@dataclass
class TrainState:
    """What a checkpoint stores besides weights and optimizer."""

    iteration: int = 0
    best_miou: float = -1.0
    best_iteration: int = -1
    best_ema_miou: float = -1.0
    evaluations_without_gain: int = 0
    evaluation_due: bool = False  # a signal arrived before the evaluation was done
    scaler: dict = field(default_factory=dict)  # state of the loss scaler
    layout: dict = field(default_factory=dict)  # values that must be equal for a resumed run to continue the first one

    def take_scores(self, scores: dict[str, float]) -> tuple[bool, bool]:
        """Records `mIoU` and `Ema_mIoU` of an evaluation, if there was one; returns whether each is the best so far."""
        better = scores.get("mIoU", -1.0) > self.best_miou
        better_ema = scores.get("Ema_mIoU", -1.0) > self.best_ema_miou
        if better:
            self.best_miou, self.best_iteration = scores["mIoU"], self.iteration
        if better_ema:
            self.best_ema_miou = scores["Ema_mIoU"]
        if scores:
            self.evaluations_without_gain = 0 if better or better_ema else self.evaluations_without_gain + 1
        return better, better_ema
