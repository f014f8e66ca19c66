# SPDX-License-Identifier: Apache-2.0
"""What a training is told at its start, and what changes while it goes."""

from dataclasses import dataclass


@dataclass
class TrainOptions:
    """What the command line of train.py decides; the rest is in the configuration."""

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
    to_static_training: bool = False
    profiler_options: str | None = None
    skip_bad_samples: bool = False
    allow_recipe_changes: bool = False
    print_mem_info: bool = True


@dataclass
class Progress:
    """What changes while training, beside weights and optimizer; it is stored in each checkpoint."""

    iteration: int = 0
    best_miou: float = -1.0
    best_iteration: int = -1
    best_ema_miou: float = -1.0
    evaluations_without_gain: int = 0
    evaluation_due: bool = False  # a signal came before it was done
