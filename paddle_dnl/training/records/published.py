# SPDX-License-Identifier: Apache-2.0
"""Compares a run with the published recipe that its configuration is or inherits from, and logs the differences."""

import hashlib
import inspect
import json
import reprlib
from collections.abc import Iterator
from pathlib import Path

from paddle_dnl import registry
from paddle_dnl.config.lookup import zoo_configs
from paddle_dnl.config.zoo import row_of
from paddle_dnl.distributed import collectives
from paddle_dnl.log import logger
from paddle_dnl.optim.optimizers import resolve
from paddle_dnl.optim.schedules import schedule_class

# Keys without influence on the result, such as paths. The batch is compared as a product, start weights by their
# presence, because a converted file may have any name.
_NO_FACTS = (
    "batch_size", "grad_accum_iters", "start_weights", "pretrained", "pretrained_sha256", "dataset_root", "train_path",
    "val_path", "test_path", "class_names", "class_colors", "custom_imports", "export", "to_static_training", "ema_decay",
    "find_unused_parameters",
)  # fmt: skip
# Kinds of the components in the sections that are not called after theirs.
_KINDS = {"train_dataset": "dataset", "val_dataset": "dataset"}


def announce(config, precision: str) -> None:
    """Logs one line with all differences from the published recipe, if there are any.

    Args:
        config: a `paddle_dnl.config.Config`; compared with the published row of the model zoo that has the name of its file, or
            of its nearest base.
        precision: `fp32`, `fp16` or `bf16`.
    """
    row = row_of(config)
    if row is None:
        return
    facts = list(departures(config, row, precision))
    if facts:
        logger.warning(f"not the published recipe: {', '.join(facts)} ({Path(row['config']).stem}, {row['source']})")


def departures(config, row: dict, precision: str) -> Iterator[str]:
    """`<fact> <value here> for <published value>`, for each fact that differs.

    Args:
        config: a `paddle_dnl.config.Config`.
        row: of `zoo.yml`, with the batch of all processes together.
    """
    recipe = type(config)(zoo_configs()[Path(row["config"]).stem])
    at_once = config.batch_size * collectives.world_size()
    batch = at_once * config.dic.get("grad_accum_iters", 1)
    if batch != row["batch"]:
        yield f"batch {batch} for {row['batch']}"
    elif at_once != batch:
        yield f"statistics of batch normalisation over {at_once} images for {row['batch']}"
    if facts_digest(recipe.dic) != row["facts"]:
        yield f"{row['config']} or one of its bases was edited"
    if precision != "fp32":
        yield f"precision {precision} for fp32"
    if _start_weights(config.dic) is None:
        yield f"start weights none for {_start_weights(recipe.dic).rsplit('/', 1)[-1]}"
    for key in dict.fromkeys((*recipe.dic, *config.dic)):
        if key not in _NO_FACTS and config.dic.get(key) != recipe.dic.get(key):
            yield from _compare(key, config.dic.get(key), recipe.dic.get(key), _KINDS.get(key, key))


def facts_digest(dic: dict) -> str:
    """First 16 hexadecimal digits of the SHA-256 of the facts in a resolved configuration.

    `zoo.yml` stores it for each published row, so that an edited file is noticed; `tools/model_zoo.py --facts` updates them.
    """
    facts = json.dumps(_only_facts(dic), sort_keys=True, default=str)
    return hashlib.sha256(facts.encode()).hexdigest()[:16]


def _only_facts(value):
    """`value` without the keys `_NO_FACTS`, at every depth."""
    if isinstance(value, dict):
        return {key: _only_facts(item) for key, item in value.items() if key not in _NO_FACTS}
    return [_only_facts(item) for item in value] if isinstance(value, list | tuple) else value


def _start_weights(dic: dict) -> str | None:
    """File or URL of the start weights; None for random initialisation."""
    sections = [section for section in (dic["model"].get("backbone"), dic["model"]) if isinstance(section, dict)]
    given = [section["pretrained"] for section in sections if "pretrained" in section]
    return next(filter(None, given), None) if given else (dic.get("start_weights") or {}).get("file")


def _compare(where: str, ours, theirs, kind: str) -> Iterator[str]:
    """Differences below the key `where`; `kind` is the registry of the components there."""
    in_list = _is_component_list(ours) and _is_component_list(theirs)
    if in_list:
        ours, theirs = _by_type(ours), _by_type(theirs)
        orders = [[key for key in steps if key in ours and key in theirs] for steps in (ours, theirs)]
        if orders[0] != orders[1]:
            yield f"{where} in the order {_short(orders[0])} for {_short(orders[1])}"
    elif isinstance(ours, dict) and isinstance(theirs, dict) and ours.get("type") == theirs.get("type"):
        ours, theirs = _with_defaults(ours, kind), _with_defaults(theirs, kind)
    else:
        if _plain(ours) != _plain(theirs):
            yield f"{where} {_short(ours)} for {_short(theirs)}"
        return
    for key in dict.fromkeys((*theirs, *ours)):
        place = f"{where}.{key}"
        if key in _NO_FACTS or ours.get(key) == theirs.get(key):
            continue
        if registry.is_component(theirs.get(key)) and key not in ours:
            yield f"without {place}"
        elif registry.is_component(ours.get(key)) and key not in theirs:
            yield f"with {place}"
        else:
            inner_kind = kind if in_list else registry.kind_of(key, kind)
            yield from _compare(place, ours.get(key), theirs.get(key), inner_kind)


def _plain(value):
    """Tuples as lists; equal values of all channels as one."""
    if isinstance(value, list | tuple) and value:
        return [value[0]] if all(item == value[0] for item in value) else list(value)
    return value


def _is_component_list(value) -> bool:
    return isinstance(value, list) and value != [] and all(map(registry.is_component, value))


def _by_type(components: list[dict]) -> dict[str, dict]:
    """Components keyed by type, so that an added step does not shift the others; `Type.2` is the second of its type."""
    found: dict[str, dict] = {}
    for component in components:
        name, number = component["type"], 1 + sum(c["type"] == component["type"] for c in found.values())
        found[name if number == 1 else f"{name}.{number}"] = component
    return found


def _with_defaults(cfg: dict, kind: str) -> dict:
    """`cfg` with the default arguments of its class filled in."""
    if "type" not in cfg:
        return cfg
    if kind == "optimizer":
        cls = resolve(cfg)[0]
    else:
        cls = schedule_class(cfg["type"]) if kind == "lr_scheduler" else registry.find(cfg["type"], kind, kind)
    parameters = inspect.signature(cls).parameters.items()
    return {key: p.default for key, p in parameters if p.default is not p.empty} | cfg


_SHORT = reprlib.Repr()
_SHORT.maxlist = _SHORT.maxdict = 6
_SHORT.maxstring = 80


def _short(value) -> str:
    if registry.is_component(value):
        return value["type"]
    if isinstance(value, str):
        return value
    return "none" if value is None else _SHORT.repr(value)
