# SPDX-License-Identifier: Apache-2.0
"""`--opts key=value`: dotted keys with list indices, values typed as in YAML."""

import re

from paddle_dnl.config.reading import parse_yaml
from paddle_dnl.errors import ConfigError

import yaml

_CONSTANTS = {"None": None, "none": None, "null": None, "~": None, "True": True, "False": False}


def parse_value(text: str):
    """The value that `text` means.

    `true`, `null`, `4e-5`, `[1, 2]`, `{a: 1}`, `'quoted'` are read as in YAML, Python's `None`, `True` and `(1, 2)` too;
    numbers joined by commas make a list, as `0.75,1.0`; all else is the text itself, with any `=`, `:` or `#` in it.
    """
    stripped = text.strip()
    if stripped in _CONSTANTS:
        return _CONSTANTS[stripped]
    if stripped[:1] == "(" and stripped[-1:] == ")":
        stripped = f"[{stripped[1:-1].rstrip(',')}]"
    if stripped.startswith(("[", "{", "'", '"')) or re.fullmatch(r"[\w.+-]+", stripped):
        try:
            return parse_yaml(stripped)
        except yaml.YAMLError:
            return text
    if "," in stripped:
        items = [parse_value(part) for part in stripped.split(",") if part.strip()]
        if items and all(isinstance(item, int | float) and not isinstance(item, bool) for item in items):
            return items
    return text


def _step(container, key: str, option: str):
    """The place inside `container` that `key` names, as an index or a key.

    Raises:
        ConfigError: an index that is not there, or a key into something that holds no keys.
    """
    if isinstance(container, list):
        if not re.fullmatch(r"\d+", key) or int(key) >= len(container):
            raise ConfigError(f"--opts {option}: {key!r} is not an index into a list of {len(container)}")
        return int(key)
    if not isinstance(container, dict):
        raise ConfigError(f"--opts {option}: {key!r} is inside {container!r}, which holds no keys")
    return key


def apply_overrides(config: dict, options: list[str]) -> None:
    """Applies `key=value` strings to `config` in place.

    A mapping that is not there yet is made; whether the key means anything is for the checks that follow.

    Raises:
        ConfigError: no `=`, an empty key, or a path that does not fit the configuration.
    """
    for option in options:
        path, separator, value = option.partition("=")
        keys = path.strip().split(".")
        if not separator or not all(keys):
            raise ConfigError(f"--opts {option}: expected key=value, for instance model.backbone.pretrained=null")
        container = config
        for key in keys[:-1]:
            place = _step(container, key, option)
            if isinstance(container, dict) and container.get(place) is None:
                container[place] = {}
            container = container[place]
        container[_step(container, keys[-1], option)] = parse_value(value)
