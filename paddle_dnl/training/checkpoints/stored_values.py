# SPDX-License-Identifier: Apache-2.0
"""Checks the values of a checkpoint before a training uses them.

A checksum proves that a file is unchanged, not that a training wrote it. Each function raises CheckpointError with the
file, the key and the value.
"""

from collections.abc import Mapping
from numbers import Integral, Real
from pathlib import Path

from paddle_dnl.errors import CheckpointError
from paddle_dnl.training.options import TrainState
from paddle_dnl.weights.restricted_pickle import shown

import numpy as np

_LARGEST = 1 << 31
_SEEDS = 1 << 128  # NumPy and Paddle accept integers from 0; random seeds have up to 128 bits


def _refuse(path: Path, key: str, value, expected: str) -> None:
    short = value is None or isinstance(value, bool | float) or (type(value) is int and value.bit_length() <= 64)
    found = repr(value) if short else shown(value)
    raise CheckpointError(f"{path}: {key} is {found}, expected {expected}; use another checkpoint")


def _require_whole(path: Path, key: str, value, low: int = 0, high: int = _LARGEST) -> None:
    if isinstance(value, bool) or not isinstance(value, Integral) or not low <= value < high:
        _refuse(path, key, value, f"a whole number from {low} to {high - 1}")


def _require_real(path: Path, key: str, value, low: float, high: float) -> None:
    fits = isinstance(value, Real) and not isinstance(value, bool) and low <= value <= high  # false for NaN
    if not fits:
        _refuse(path, key, value, f"a number from {low:g} to {high:g}")


def _require_mapping(path: Path, key: str, value) -> None:
    if not isinstance(value, Mapping) or not all(type(name) is str for name in value):
        _refuse(path, key, value, "a mapping of names to values")


def require_states(path: Path, states: Mapping, iteration: int) -> None:
    """Checks `model.pdstates`; keys that older versions did not write may be missing.

    Args:
        path: of the file, for the message.
        states: as read from it.
        iteration: of the manifest.
    """
    _require_mapping(path, "the file", states)
    if type(states.get("iteration")) is not int or states["iteration"] != iteration:
        raise CheckpointError(f"{path}: does not belong to this checkpoint; use another one")
    _require_whole(path, "iteration", iteration)
    progress = vars(TrainState()) | dict(states)
    for key in ("best_miou", "best_ema_miou"):  # -1 before the first evaluation
        _require_real(path, key, progress[key], -1, 1)
    _require_whole(path, "best_iteration", progress["best_iteration"], -1)
    _require_whole(path, "evaluations_without_gain", progress["evaluations_without_gain"])
    if type(progress["evaluation_due"]) is not bool:
        _refuse(path, "evaluation_due", progress["evaluation_due"], "true or false")
    layout = states.get("layout", {})
    _require_mapping(path, "layout", layout)
    for key, value in layout.items():
        if key == "seed":
            _require_whole(path, "layout.seed", value, 0, _SEEDS)
        elif type(value) not in (int, str):
            _refuse(path, f"layout.{key}", value, "a number or a name")
    scaler = states.get("scaler", {})  # of the loss scaler, see `amp`; empty if there was none
    _require_mapping(path, "scaler", scaler)
    if not scaler:
        return
    scale = scaler.get("scale")
    if not isinstance(scale, list) or len(scale) != 1:
        _refuse(path, "scaler.scale", scale, "a list of one number")
    _require_real(path, "scaler.scale", scale[0], 2.0**-126, 2.0**127)
    _require_real(path, "scaler.incr_ratio", scaler.get("incr_ratio"), 1, 2.0**16)
    _require_real(path, "scaler.decr_ratio", scaler.get("decr_ratio"), 2.0**-16, 1)
    for key in ("incr_every_n_steps", "decr_every_n_nan_or_inf", "incr_count", "decr_count"):
        _require_whole(path, f"scaler.{key}", scaler.get(key))
    if type(scaler.get("use_dynamic_loss_scaling")) is not bool:
        _refuse(path, "scaler.use_dynamic_loss_scaling", scaler.get("use_dynamic_loss_scaling"), "true or false")


def require_schedule(path: Path, state, key: str = "LR_Scheduler") -> None:
    """Checks the state of a learning-rate schedule, and of one nested in it, as in a warm-up."""
    _require_mapping(path, key, state)
    _require_whole(path, f"{key}.last_epoch", state.get("last_epoch"))
    _require_real(path, f"{key}.last_lr", state.get("last_lr"), 0, 1e6)
    for name, value in state.items():
        if isinstance(value, Mapping):
            require_schedule(path, value, f"{key}.{name}")
        elif not isinstance(value, Real | str | None):
            _refuse(path, f"{key}.{name}", value, "a number")


def require_slot(path: Path, name: str, value, parameter) -> None:
    """Checks one slot of an optimizer, or the float32 copy of a parameter.

    Args:
        path: of the file, for the message.
        name: of the slot.
        value: as read from it; must have the parameter's shape, or hold one number (a power of Adam's beta).
        parameter: the one it belongs to.
    """
    shape = tuple(parameter.shape)
    expected = f"finite floating-point numbers in the parameter's shape {list(shape)}"
    if not isinstance(value, np.ndarray) or value.shape not in (shape, (1,)):
        _refuse(path, name, value, expected)
    own = str(parameter.dtype).rsplit(".", 1)[-1]
    kinds = {"float32", "uint16" if own == "bfloat16" else own}  # the bits of bfloat16, which NumPy lacks
    if value.dtype.name not in kinds:
        _refuse(path, name, value, expected)
    if value.dtype.kind == "f" and not np.isfinite(value).all():
        raise CheckpointError(f"{path}: {name} holds NaN or infinity; use another checkpoint, or --fresh_optimizer")
