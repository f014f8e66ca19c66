# SPDX-License-Identifier: Apache-2.0
"""Refuses arguments with which a PaddleSeg component would run text as code, unpickle weights or unpack a download.

A configuration may come from an untrusted source. Components of this package do none of this with their arguments.
"""

import inspect
import os
import re
import reprlib

from paddle_dnl.errors import ConfigError

# String arguments of PaddleSeg's components are words such as `bilinear` or `NCHW`. Some components evaluate strings as
# Python code, so other strings are refused.
_WORD = re.compile(r"[\w.-]*", re.ASCII)
_LAYER = re.compile(r"nn\.[A-Za-z]\w*", re.ASCII)


def is_of_paddleseg(cls) -> bool:
    """Whether PaddleSeg itself defines a component; its registries may also have components of the user."""
    return cls.__module__.split(".")[0] == "paddleseg"


def _refuse_value(key: str, value, where: str) -> None:
    """Checks an argument of a PaddleSeg component, including nested mappings and lists."""
    if key == "pretrained" and value is not None:
        raise ConfigError(f"{where}: start weights are read for `model` and `model.backbone` only; remove this key")
    if isinstance(value, dict):
        for inner, item in value.items():
            _refuse_value(inner, item, f"{where}.{inner}")
    elif isinstance(value, list | tuple | set):  # YAML also has `!!pairs` and `!!set`
        for i, item in enumerate(value):
            _refuse_value(key, item, f"{where}.{i}")
    elif isinstance(value, str | bytes):
        allowed, example = (_LAYER, "nn.LayerNorm") if key == "norm_layer" else (_WORD, "bilinear")
        if isinstance(value, bytes) or not allowed.fullmatch(value):
            raise ConfigError(f"{where}: {reprlib.repr(value)} is not allowed here; use a name such as {example}")


def refuse_harmful(cfg: dict, where: str) -> None:
    """Checks every argument of a PaddleSeg component except nested components.

    Raises:
        ConfigError: names the dotted key, the value and what is allowed.
    """
    for key, value in cfg.items():
        items = {f"{where}.{key}": value}
        if isinstance(value, list):
            items = {f"{where}.{key}.{i}": item for i, item in enumerate(value)}
        for dotted, item in items.items():
            is_nested = isinstance(item, dict) and "type" in item
            if key == "pretrained" or not is_nested:
                _refuse_value(key, item, dotted)


def refuse_fetching(cls: type, cfg: dict, where: str) -> None:
    """Refuses a PaddleSeg dataset without its folder: PaddleSeg would unpack a download without path checks.

    Raises:
        ConfigError: `dataset_root` is not an existing folder.
    """
    if not is_of_paddleseg(cls) or "dataset_root" not in inspect.signature(cls).parameters:
        return
    root = cfg.get("dataset_root")
    if not isinstance(root, str) or not os.path.isdir(root):
        raise ConfigError(
            f"{where}.dataset_root: {reprlib.repr(root)} is not a folder; put the data of {cfg['type']} there first"
        )
