# SPDX-License-Identifier: Apache-2.0
"""Checks of the sections of a configuration: known keys, known components and arguments, values of the right kind.

Each check works on the plain dict, raises `ConfigError` with dotted key and nearest valid name, and repeats a loss that
stands for several, as PaddleSeg does.
"""

import inspect
import math
import reprlib

from paddle_dnl import registry
from paddle_dnl.config.choices import AVERAGES
from paddle_dnl.errors import ConfigError
from paddle_dnl.optim.schedules import schedule_class

_REQUIRED = ("batch_size", "iters", "train_dataset", "optimizer", "lr_scheduler", "loss", "model")
_OPTIONAL = (
    "val_dataset", "test_config", "to_static_training", "export", "grad_accum_iters", "ema_decay",
    "pretrained_sha256", "start_weights", "custom_imports", "print_mem_info", "log_ranks",
    "class_weights", "freeze", "find_unused_parameters",
)  # fmt: skip
_TEST_KEYS = (
    "aug_eval", "scales", "flip_horizontal", "flip_vertical", "is_slide", "crop_size", "stride", "average", "align_corners",
    "auc_roc", "batch_size", "while_training", "use_multilabel",
)  # fmt: skip
# The file that a recipe begins with, where its project publishes it, and the converter's name of that project.
_START_WEIGHT_KEYS = ("file", "from", "source")
_SECTIONS = {"model": "model", "train_dataset": "dataset", "val_dataset": "dataset"}


def check(config: dict, for_training: bool = True) -> None:
    """Checks `config` in place, but for its optimizer (`optim.optimizers.check`) and for values that depend on each other.

    Args:
        config: the whole configuration.
        for_training: whether the sections that only a training needs must be there; they are checked where they are.
    """
    _check_top_level(config, _REQUIRED if for_training else ("model",))
    for section, kind in _SECTIONS.items():
        if section in config:
            check_component(config[section], kind, section)
    _check_normalisation(config)
    for section, check_section in _TRAINING_SECTIONS.items():
        if config.get(section) is not None:
            check_section(config[section])
    _check_test_config(config.get("test_config") or {})


def _check_top_level(config: dict, required: tuple[str, ...]) -> None:
    for key in config:
        registry.refuse_unknown(key, (*_REQUIRED, *_OPTIONAL), "")
    for key in required:
        if config.get(key) is None:
            raise ConfigError(f"{key}: missing")
    for key in ("batch_size", "iters", "grad_accum_iters"):
        value = config.get(key, 1)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ConfigError(f"{key}: must be a positive integer, got {value!r}")
    decay = config.get("ema_decay", 0.999)
    if isinstance(decay, bool) or not isinstance(decay, int | float) or not 0 <= decay < 1:
        raise ConfigError(f"ema_decay: must be a number in [0, 1), got {decay!r}")
    find = config.get("find_unused_parameters", "auto")
    if not isinstance(find, bool) and find != "auto":
        raise ConfigError(f"find_unused_parameters: must be true, false or auto, got {find!r}")
    wanted = config.get("start_weights")
    if wanted is not None:
        if not isinstance(wanted, dict) or not all(isinstance(value, str) for value in wanted.values()):
            raise ConfigError(f"start_weights: expected file, from and source, each a text; got {wanted!r}")
        for key in wanted:
            registry.refuse_unknown(key, _START_WEIGHT_KEYS, "start_weights")
        for key in _START_WEIGHT_KEYS:
            if key not in wanted:
                raise ConfigError(f"start_weights.{key}: missing")
    for key in ("to_static_training", "print_mem_info"):
        if not isinstance(config.get(key, False), bool):
            raise ConfigError(f"{key}: must be true or false, got {config[key]!r}")


def check_component(cfg, kind: str, where: str, owner=None) -> None:
    """A `{type: ..., argument: ...}` mapping and all inside it: known name, known arguments, none missing.

    `owner` is the class of the component that it is a part of.
    """
    registry.require_component(cfg, kind, where)
    cls = registry.find(cfg["type"], kind, where, owner)
    arguments = {key: value for key, value in cfg.items() if key != "type"}
    registry.check_arguments(cls, cfg["type"], arguments, where, _SUPPLIED.get(kind, ()))
    weights = cfg.get("pretrained")
    if weights is not None and where not in _START_WEIGHTS:
        raise ConfigError(
            f"{where}.pretrained: start weights are read for {' and '.join(_START_WEIGHTS)} only; remove this key"
        )
    if weights is not None and not isinstance(weights, str):
        raise ConfigError(f"{where}.pretrained: must be the path or address of a file, got {reprlib.repr(weights)}")
    registry.refuse_harmful(cls, {key: value for key, value in cfg.items() if key != "pretrained"}, kind, where)
    for key in ("transforms", "losses"):
        items = cfg.get(key)
        if items is not None and (not isinstance(items, list) or not all(registry.is_component(i) for i in items)):
            raise ConfigError(f"{where}.{key}: expected a list of mappings with a `type` key")
    for key, value in cfg.items():
        if isinstance(value, str) and key != "type" and registry.kind_of(key, "") == "backbone":
            is_own = cls.__module__.startswith("paddle_dnl.")
            if is_own or value in registry.names("backbone"):
                raise ConfigError(
                    f"{where}.{key}: expected a mapping with a `type` key, got {value!r}; write `{key}: {{type: {value}}}`"
                )
    for inner, inner_kind, inner_where in registry.nested(cfg, kind, where):
        check_component(inner, inner_kind, inner_where, cls)


# Whose `pretrained` is read, by our own reader; see `paddle_dnl.models.start_weights`.
_START_WEIGHTS = ("model", "model.backbone")


# Arguments that the program supplies, so that a configuration need not.
_SUPPLIED = {
    "model": {"num_classes", "pretrained"},
    "backbone": {"pretrained"},
    "dataset": {"transforms", "num_classes"},
}


def _is_number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_normalisation(config: dict) -> None:
    """A mean per channel: NumPy would spread two of them over the width of an image where that fits."""
    for section in ("train_dataset", "val_dataset"):
        cfg = config.get(section) or {}
        channels = cfg.get("img_channels", 3)
        for i, step in enumerate(cfg.get("transforms") or []):
            for key in ("mean", "std") if step["type"] == "Normalize" else ():
                value = step.get(key, [0.5] * channels)
                if not isinstance(value, list) or len(value) != channels or not all(map(_is_number, value)):
                    raise ConfigError(
                        f"{section}.transforms.{i}.{key}: must be a list of {channels} numbers, one per channel; got {value!r}"
                    )


def _check_scheduler(cfg) -> None:
    where = "lr_scheduler"
    if not isinstance(cfg, dict) or "type" not in cfg:
        raise ConfigError(f"{where}: expected a mapping with a `type` key, got {cfg!r}")
    parameters = inspect.signature(schedule_class(cfg["type"])).parameters
    known = [*parameters, "type", "warmup_iters", "warmup_start_lr"]
    for key, value in cfg.items():
        registry.refuse_unknown(key, known, where)
        default = parameters[key].default if key in parameters else 0.0
        if key != "type" and type(default) in (int, float) and not _is_number(value):
            raise ConfigError(f"{where}.{key}: must be a number, got {value!r}")
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{where}.{key}: must be a finite number, got {value!r}")
    if "warmup_iters" in cfg and "warmup_start_lr" not in cfg:
        raise ConfigError(f"{where}.warmup_start_lr: missing; warmup_iters needs it")
    rate = cfg.get("learning_rate")
    if "learning_rate" in known and (isinstance(rate, bool) or not isinstance(rate, int | float) or rate < 0):
        raise ConfigError(f"{where}.learning_rate: must be a number from 0, got {rate!r}")


def _check_losses(cfg: dict) -> None:
    """`loss`: types, coefficients, and one type repeated for each coefficient."""
    if not isinstance(cfg, dict):
        raise ConfigError(f"loss: expected a mapping with `types` and `coef`, got {cfg!r}")
    for key in cfg:
        registry.refuse_unknown(key, ("types", "coef"), "loss")
    types, coef = cfg.get("types"), cfg.get("coef")
    if not isinstance(types, list) or not types:
        raise ConfigError(f"loss.types: expected a list of losses, got {types!r}")
    if not isinstance(coef, list) or not coef or not all(isinstance(c, int | float) and math.isfinite(c) for c in coef):
        raise ConfigError(f"loss.coef: expected a list of numbers, got {coef!r}")
    for i, item in enumerate(types):
        check_component(item, "loss", f"loss.types.{i}")
    if len(types) == 1:
        cfg["types"] = [dict(types[0]) for _ in coef]
    elif len(types) != len(coef):
        raise ConfigError(f"loss.types: {len(types)} losses for {len(coef)} coef; give one, or one per coef")


_TRAINING_SECTIONS = {"lr_scheduler": _check_scheduler, "loss": _check_losses}


def _check_test_config(cfg: dict, where: str = "test_config") -> None:
    if not isinstance(cfg, dict):
        raise ConfigError(f"{where}: expected a mapping, got {cfg!r}")
    for key in cfg:
        registry.refuse_unknown(key, _TEST_KEYS, where)
    if cfg.get("while_training") is not None:
        if where != "test_config":
            raise ConfigError(f"{where}.while_training: stands in test_config only")
        inner = cfg["while_training"]
        _check_test_config(inner, f"{where}.while_training")
        cfg = {**{key: value for key, value in cfg.items() if key != "while_training"}, **inner}
    if cfg.get("average", "logits") not in AVERAGES:
        raise ConfigError(f"{where}.average: must be one of {', '.join(AVERAGES)}, got {cfg['average']!r}")
    scales = cfg.get("scales")
    items = scales if isinstance(scales, list) else [scales]
    if scales is not None and not (items and all(_is_number(v) and 0 < v < math.inf for v in items)):
        raise ConfigError(f"{where}.scales: expected a positive number or a list of them, got {scales!r}")
    for key in ("crop_size", "stride"):
        value = cfg.get(key)
        if value is None and cfg.get("is_slide"):
            raise ConfigError(f"{where}.{key}: missing; is_slide needs it, as [width, height] in pixels")
        if value is not None and not (
            isinstance(value, list) and len(value) == 2 and all(isinstance(v, int) and v > 0 for v in value)
        ):
            raise ConfigError(f"{where}.{key}: expected [width, height] in pixels, got {value!r}")
