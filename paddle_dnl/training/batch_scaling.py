# SPDX-License-Identifier: Apache-2.0
"""Linear scaling of the learning rate with the total batch size (`--scale_lr`); explains a changed batch size on resume.

P. Goyal et al., "Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour" (2017), linear scaling rule.
"""

import inspect
from collections.abc import Mapping

from paddle_dnl.config.zoo import row_of
from paddle_dnl.distributed import collectives
from paddle_dnl.errors import UsageError
from paddle_dnl.log import logger
from paddle_dnl.optim.schedules import schedule_class

# Arguments of the schedules that are learning rates, not factors or steps.
_RATES = (
    "learning_rate", "end_lr", "warmup_start_lr", "start_lr", "eta_min", "values", "base_learning_rate",
    "max_learning_rate", "end_learning_rate",
)  # fmt: skip


def batch_of_all(layout: Mapping) -> int:
    """Total batch size: images per update over all processes; `layout` has batch_size, world_size and grad_accum_iters."""
    return layout["batch_size"] * layout["world_size"] * layout["grad_accum_iters"]


def scale_rates(config, base: int | None) -> None:
    """Multiplies the learning rates of `config`'s schedule, in place, by total batch size / `base`.

    Args:
        config: a `paddle_dnl.config.Config`.
        base: total batch size that the rates were chosen for; 0: that of the published recipe or, without one, of the
            configuration file in one process, before overrides; None: no scaling.

    Raises:
        UsageError: `config` is made of objects; their optimizer has its rate already.
    """
    if base is None:
        return
    if "lr_scheduler" not in config.dic:
        raise UsageError("scale_lr: only with a configuration; give the optimizer the rate that it should have")
    row = row_of(config)
    if base:
        why = "--scale_lr"
    elif row is not None:
        base, why = row["batch"], f"the published recipe, {row['source']}"
    else:
        base, why = config.batch_in_file, f"{config.path} in one process"
    accumulate = config.dic.get("grad_accum_iters", 1)
    batch = batch_of_all(
        {"batch_size": config.batch_size, "world_size": collectives.world_size(), "grad_accum_iters": accumulate}
    )
    factor = batch / base
    schedule = config.dic["lr_scheduler"]
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(schedule_class(schedule["type"])).parameters.items()
        if isinstance(parameter.default, int | float)
    }
    before = {name: value for name, value in {**defaults, **schedule}.items() if name in _RATES and value is not None}
    for name, value in before.items():
        schedule[name] = [rate * factor for rate in value] if isinstance(value, list) else value * factor
    changes = ", ".join(f"{name} {value} -> {schedule[name]}" for name, value in before.items())
    logger.info(f"--scale_lr: {batch} images per update for {base} ({why}), rates times {factor:g}: {changes}")


def explain_change(before: Mapping, now: Mapping, config, is_scaled: bool) -> str | None:
    """Message on a resumed run with another batch size or number of processes; None where neither has changed.

    Args:
        before, now: see `batch_of_all`; an older checkpoint may lack keys.
        config: of the run.
        is_scaled: whether `scale_rates` scaled this run's rates.
    """
    keys = ("batch_size", "world_size", "grad_accum_iters")
    if any(key not in before for key in keys) or all(before[key] == now[key] for key in keys):
        return None
    old, new = batch_of_all(before), batch_of_all(now)
    if old == new:
        return f"iterations, learning rate and the batch of all processes ({new} images per update) stay"
    stays = f"{config.iters} iterations stay, each with {new} images in place of {old}"
    rate = config.dic.get("lr_scheduler", {}).get("learning_rate")
    if is_scaled:
        return f"{stays}; the learning rate is in proportion (--scale_lr)"
    if rate is None:
        return f"{stays}; the learning rate stays, in proportion it would be {new / old:g} times as large"
    return f"{stays}; the learning rate of {rate:g} stays, in proportion it would be {rate * new / old:g} (--scale_lr {old})"
