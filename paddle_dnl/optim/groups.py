# SPDX-License-Identifier: Apache-2.0
"""Parameter groups (`custom_cfg` of an optimizer): parameters with a learning rate and weight decay of their own."""

import math
import re

from paddle_dnl.compat.refusals import is_of_paddleseg
from paddle_dnl.errors import ConfigError, nearest
from paddle_dnl.log import logger

import paddle

_GROUP_KEYS = ("name", "pattern", "lr_mult", "weight_decay_mult")


def number(value, where: str) -> float:
    """`value` as a float; YAML reads 4e-5, without a point, as text, which is accepted.

    Raises:
        ConfigError: not a number from 0.
    """
    try:
        found = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        found = math.nan
    if not (math.isfinite(found) and found >= 0):
        raise ConfigError(f"{where}: must be a number from 0, got {value!r}")
    return found


def _matches(rule: dict, name: str) -> bool:
    return bool(re.search(rule["pattern"], name)) if "pattern" in rule else rule["name"] in name


def check_rules(rules) -> None:
    """Checks the form of `custom_cfg`; None is none.

    Raises:
        ConfigError: names the entry and the key.
    """
    if rules is None:
        return
    if not isinstance(rules, list) or not all(isinstance(rule, dict) for rule in rules):
        raise ConfigError(f"optimizer.custom_cfg: expected a list of mappings, got {rules!r}")
    for i, rule in enumerate(rules):
        where = f"optimizer.custom_cfg.{i}"
        for key in rule:
            if key not in _GROUP_KEYS:
                raise ConfigError(f"{where}.{key}: unknown key.{nearest(key, _GROUP_KEYS)}")
        if ("name" in rule) == ("pattern" in rule):
            raise ConfigError(f"{where}: give either `name`, a part of parameter names, or `pattern`, a regex")
        wanted = rule.get("name", rule.get("pattern"))
        if not isinstance(wanted, str):
            raise ConfigError(f"{where}: `name` and `pattern` are text, got {wanted!r}")
        try:
            re.compile(rule.get("pattern", ""))
        except re.error as error:
            raise ConfigError(f"{where}.pattern: {rule['pattern']!r} is not a regular expression ({error})") from error
        for key in ("lr_mult", "weight_decay_mult"):
            if rule.get(key) is not None:
                number(rule[key], f"{where}.{key}")


def parameter_groups(model: paddle.nn.Layer, rules: list[dict] | None, weight_decay: float | None) -> list:
    """The trainable parameters, in groups when there are rules.

    Args:
        model: its parameters' structured names decide; the first rule that fits takes a parameter.
        rules: `custom_cfg`: mappings with `name` (substring) or `pattern` (regex), `lr_mult`, `weight_decay_mult`.
        weight_decay: what `weight_decay_mult` multiplies.

    Raises:
        ConfigError: a malformed rule, or one that fits no parameter (a warning for models of PaddleSeg).
    """
    named = [(name, p) for name, p in model.named_parameters() if not p.stop_gradient]
    if not rules:
        return [p for _, p in named]
    check_rules(rules)
    members: list[list] = [[] for _ in rules]
    rest = []
    for name, parameter in named:
        index = next((i for i, rule in enumerate(rules) if _matches(rule, name)), None)
        (rest if index is None else members[index]).append(parameter)
    groups = []
    for i, (rule, parameters) in enumerate(zip(rules, members, strict=True)):
        wanted = rule.get("name", rule.get("pattern"))
        if not parameters:
            taken = any(_matches(rule, name) for name, _ in named)
            why = "earlier entries take every parameter that fits" if taken else "no parameter of the model fits"
            if not is_of_paddleseg(type(model)):
                raise ConfigError(f"optimizer.custom_cfg.{i}: {why} {wanted!r}")
            # PaddleSeg makes an empty group of it, and some of its own files have such rules.
            logger.warning(f"optimizer.custom_cfg.{i}: no effect, {why} {wanted!r}")
            continue
        rate = rule.get("lr_mult")
        group = {"params": parameters, "learning_rate": 1.0 if rate is None else float(rate)}
        if weight_decay is not None and rule.get("weight_decay_mult") is not None:
            group["weight_decay"] = weight_decay * float(rule["weight_decay_mult"])
        groups.append(group)
        logger.info(f"parameter group {wanted!r}: {len(parameters)} parameters")
    return groups + ([{"params": rest}] if rest else [])


def split_groups(groups: list, of_parameter) -> list[dict]:
    """Groups divided further: `of_parameter(p) -> (factor on the rate, whether weight decay applies)`."""
    divided: dict[tuple, dict] = {}
    for i, group in enumerate(groups if groups and isinstance(groups[0], dict) else [{"params": groups}]):
        for parameter in group["params"]:
            factor, decays = of_parameter(parameter)
            made = {**group, "params": [], "learning_rate": group.get("learning_rate", 1.0) * factor}
            if not decays:
                made["weight_decay"] = 0.0
            divided.setdefault((i, factor, decays), made)["params"].append(parameter)
    return list(divided.values())
