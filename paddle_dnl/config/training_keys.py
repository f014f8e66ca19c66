# SPDX-License-Identifier: Apache-2.0
"""`class_weights` and `freeze`: keys of a configuration that this package adds for fine-tuning."""

import inspect
import math

from paddle_dnl import registry
from paddle_dnl.errors import ConfigError


def _is_number(value) -> bool:
    """A finite number; True and False are none."""
    return type(value) in (int, float) and math.isfinite(value)


def check_class_weights(value, losses: list[dict], num_classes: int) -> None:
    """`auto`, or one number from 0 per class, for losses that have `weight`.

    Raises:
        ConfigError: something else, or no loss that takes class weights, or one that has its own.
    """
    if value is None:
        return
    fits = isinstance(value, list) and len(value) == num_classes and all(_is_number(v) and v >= 0 for v in value)
    if value != "auto" and not (fits and any(value)):
        raise ConfigError(f"class_weights: must be `auto` or {num_classes} numbers, one per class; got {value!r}")
    found = weighted_losses(losses)
    if not found:
        raise ConfigError("class_weights: none of the losses takes class weights (`weight`); use CrossEntropyLoss")
    if any(loss.get("weight") is not None for loss in found):
        raise ConfigError("class_weights: a loss has its own `weight`; remove one of the two")


def weighted_losses(losses: list[dict], where: str = "loss.types") -> list[dict]:
    """The mappings of the losses that take class weights, also inside of others."""
    found = []
    for i, loss in enumerate(losses):
        found += weighted_losses(loss.get("losses") or [], f"{where}.{i}.losses")
        if "weight" in inspect.signature(registry.find(loss["type"], "loss", f"{where}.{i}")).parameters:
            found.append(loss)
    return found


def check_freeze(value) -> None:
    """`backbone`, `{stages: N}`, or a list of names of layers.

    Raises:
        ConfigError: something else.
    """
    is_stages = isinstance(value, dict) and set(value) == {"stages"} and type(value["stages"]) is int
    is_names = isinstance(value, list) and bool(value) and all(isinstance(name, str) for name in value)
    if value not in (None, "backbone") and not is_names and not (is_stages and 0 <= value["stages"] <= 4):
        raise ConfigError(
            f"freeze: must be `backbone`, `{{stages: N}}` (N from 0 to 4), or a list of names of layers; got {value!r}"
        )


def set_num_classes(config: dict, count: int) -> None:
    """Another number of classes for datasets whose number is in the configuration, in place.

    Names and colours of another number are left out.
    """
    for section in ("model", "train_dataset", "val_dataset"):
        cfg = config.get(section)
        if not isinstance(cfg, dict):
            continue
        if section == "model" or "num_classes" in cfg:
            cfg["num_classes"] = count
        if len(cfg.get("class_names") or []) != count:
            cfg.pop("class_names", None)
            cfg.pop("class_colors", None)
