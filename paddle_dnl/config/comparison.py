# SPDX-License-Identifier: Apache-2.0
"""Compares two configurations: which keys differ, and which of them change what trained weights compute or mean."""

import inspect
from collections.abc import Iterator
from pathlib import Path

from paddle_dnl import registry
from paddle_dnl.config.choices import CONFIG_NAME, NORMALIZATIONS
from paddle_dnl.config.reading import BASE_KEY, read_yaml_mapping
from paddle_dnl.errors import ConfigError
from paddle_dnl.log import logger

_SHOWN = 5
# Start weights are replaced by the checkpoint's; folders may move; file names are compared by the layout of the run.
_NO_PART_OF_THE_RECIPE = ("pretrained", "pretrained_sha256", "dataset_root", "train_path", "val_path", "test_path")
# Keys of models that act in training only, or choose between implementations of the same function. Another num_classes
# does not fit the weights.
_WITHOUT_EFFECT = ("num_classes", "enable_auxiliary_loss", "data_format", "attention")


def _flat(value, key: str = "") -> Iterator[tuple[str, object]]:
    if isinstance(value, dict) and value:
        for name, item in value.items():
            yield from _flat(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for i, item in enumerate(value):
            yield from _flat(item, f"{key}.{i}")
    else:
        yield key, value


def differences(before: dict, now: dict) -> dict[str, tuple]:
    """Dotted keys whose values differ -> (before, now); None for a missing key."""
    old, new = dict(_flat(before)), dict(_flat(now))
    return {
        key: (old.get(key), new.get(key))
        for key in sorted({*old, *new})
        if old.get(key) != new.get(key) and not any(part in _NO_PART_OF_THE_RECIPE for part in key.split("."))
    }


def _mapping(config: dict, key: str) -> dict:
    return config[key] if isinstance(config.get(key), dict) else {}


def preprocessing(config: dict, section: str) -> list[dict]:
    """The transforms of a dataset's section that determine the values of the network's input."""
    steps = _mapping(config, section).get("transforms")
    steps = steps if isinstance(steps, list) else []
    return [step for step in steps if isinstance(step, dict) and step.get("type") in NORMALIZATIONS]


def changes_function(key: str) -> bool:
    """Whether a key, apart from the normalisation, changes what the trained weights compute or mean."""
    parts = key.split(".")
    return parts[0] == "model" or parts[-1] in ("num_classes", "ignore_index", "img_channels", "class_names")


def _filled(cfg: dict, kind: str, owner: type | None = None) -> dict:
    """The configuration of a component with the defaults of the arguments that it does not give, nested components too."""
    try:
        cls = registry.find(cfg.get("type"), kind, kind, owner)
    except ConfigError:  # for instance a component of a module that is not imported here
        return cfg
    defaults = {key: p.default for key, p in inspect.signature(cls).parameters.items() if p.default is not p.empty}
    filled = {key: list(value) if isinstance(value, tuple) else value for key, value in defaults.items()}
    for key, value in cfg.items():
        is_part = registry.is_component(value)
        filled[key] = _filled(value, registry.kind_of(key, kind, value["type"]), cls) if is_part else value
    return filled


def _per_channel(step: dict, config: dict) -> dict:
    """A normalisation with one number per channel where one stands for all."""
    channels = _mapping(config, "val_dataset").get("img_channels", 3)
    return {
        key: value * channels if isinstance(value, list) and len(value) == 1 else value for key, value in step.items()
    }


def evaluation_changes(before: dict, now: dict) -> dict[str, tuple]:
    """As `differences`, but only what changes the predictions of trained weights or the meaning of their classes.

    Args:
        before: the resolved configuration of the training.
        now: the resolved configuration of an evaluation, prediction or export.
    """
    found = {}
    models = ({"model": _filled(config["model"], "model")} for config in (before, now))
    for key, values in differences(*models).items():
        last = key.rsplit(".", 1)[-1]
        if changes_function(key) and last not in _WITHOUT_EFFECT and not last.startswith("drop"):
            found[key] = values
    section = "val_dataset"
    old, new = _mapping(before, section), _mapping(now, section)
    if not old or not new:
        return found
    steps = (
        {step["type"]: _per_channel(_filled(step, "transform"), config) for step in preprocessing(config, section)}
        for config in (before, now)
    )
    found |= {f"{section}.transforms.{key}": values for key, values in differences(*steps).items()}
    if old.get("value_range") != new.get("value_range"):
        found[f"{section}.value_range"] = old.get("value_range"), new.get("value_range")
    names, others = old.get("class_names") or [], new.get("class_names") or []
    if any(name in others and others.index(name) != i for i, name in enumerate(names)):
        found[f"{section}.class_names"] = names, others
    return found


def warn_of_changes(weights: str | Path, config) -> None:
    """Warns in one line if weights were trained with another network, normalisation or order of classes.

    Some of these changes are legitimate, such as another `output_stride` at evaluation.

    Args:
        weights: the file; without a `config.yml` of a training beside it, nothing is compared.
        config: the `Config` with which they are used.
    """
    path = Path(weights).parent / CONFIG_NAME
    if not path.is_file() or (Path(config.path).is_file() and path.samefile(config.path)):
        return
    try:
        before = read_yaml_mapping(path)
    except ConfigError as error:
        logger.warning(f"{error}; the configuration of the weights is not known")
        return
    if BASE_KEY in before or not _mapping(before, "model"):  # not written by a training
        return
    found = evaluation_changes(before, config.dic)
    if found:
        shown = [f"{key} {old!r} -> {new!r}" for key, (old, new) in found.items()]
        more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
        logger.warning(
            f"{weights}: trained with other values than those of {config.path} ({path} -> given): "
            f"{'; '.join(shown[:_SHOWN])}{more}; unless intended, use the values of the training"
        )
