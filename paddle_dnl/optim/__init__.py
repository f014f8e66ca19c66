# SPDX-License-Identifier: Apache-2.0
"""Learning-rate schedules and optimizers from a configuration, with PaddleSeg's names, arguments and parameter groups."""

from paddle_dnl.optim.groups import parameter_groups
from paddle_dnl.optim.optimizers import build_optimizer, resolve
from paddle_dnl.optim.schedules import build_lr_scheduler, schedule_class

__all__ = ["build_lr_scheduler", "build_optimizer", "parameter_groups", "resolve", "schedule_class"]
