# SPDX-License-Identifier: Apache-2.0
"""Learning-rate schedules of `paddle.optimizer.lr` with PaddleSeg's defaults and linear warm-up."""

import inspect

from paddle_dnl.errors import ConfigError, nearest

import paddle
from paddle.optimizer.lr import LinearWarmup, LRScheduler


def schedule_class(name) -> type[LRScheduler]:
    """The class of `paddle.optimizer.lr` that a configuration names.

    Raises:
        ConfigError: there is none, or it needs more than the number of the step.
    """
    module = paddle.optimizer.lr
    known = [
        key for key, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, LRScheduler) and value is not LRScheduler
    ]  # fmt: skip
    if name not in known:
        raise ConfigError(f"lr_scheduler.type: no schedule {name!r}.{nearest(str(name), known)}")
    if name == "ReduceOnPlateau":
        raise ConfigError("lr_scheduler.type: ReduceOnPlateau needs a loss at each step; choose a schedule of the step")
    return getattr(module, name)


def build_lr_scheduler(cfg: dict, iters: int) -> LRScheduler:
    """The schedule over `iters` optimizer steps.

    Args:
        cfg: `{"type": a class of paddle.optimizer.lr, ...}`; PolynomialDecay ends with the training unless
            `decay_steps` is given; `warmup_iters` and `warmup_start_lr` put a linear warm-up before it.
        iters: length of the training.

    Raises:
        ConfigError: unknown schedule or arguments that it refuses.
    """
    cfg = dict(cfg)
    kind = cfg.pop("type", None)
    warmup_iters = cfg.pop("warmup_iters", None)
    warmup_start = cfg.pop("warmup_start_lr", None)
    cls = schedule_class(kind)
    if kind == "PolynomialDecay":
        cfg.setdefault("decay_steps", max(1, iters - (warmup_iters or 0)))
    try:
        schedule = cls(**cfg)
        if warmup_iters:
            # PaddleSeg warms up to `learning_rate` and so fails on schedules without one; their first rate serves.
            end = cfg.get("learning_rate", schedule.get_lr())
            return LinearWarmup(schedule, warmup_iters, warmup_start or 0.0, end)
        return schedule
    except (TypeError, ValueError, AssertionError, NotImplementedError) as error:
        raise ConfigError(f"lr_scheduler: {kind} cannot be built: {error}") from error
