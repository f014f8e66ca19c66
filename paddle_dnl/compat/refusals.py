# SPDX-License-Identifier: Apache-2.0
"""Arguments with which a component of PaddleSeg would run text as code, unpickle weights or unpack a fetched archive.

A configuration may come from a stranger; ours do none of this with theirs.
"""

import inspect
import os
import re
import reprlib

from paddle_dnl.errors import ConfigError

# String arguments of PaddleSeg's components are words such as `bilinear` or `NCHW`. Some components evaluate them as Python
# code, so other strings are refused.
_WORD = re.compile(r"[\w.-]*", re.ASCII)
_LAYER = re.compile(r"nn\.[A-Za-z]\w*", re.ASCII)


def is_of_paddleseg(cls) -> bool:
    """Not ours, and not a user's own that was put into PaddleSeg's registries."""
    return cls.__module__.split(".")[0] == "paddleseg"


def _refuse_value(key: str, value, where: str) -> None:
    """One argument of a component of PaddleSeg, with all mappings and lists in it."""
    if key == "pretrained" and value is not None:
        raise ConfigError(f"{where}: start weights are read for `model` and `model.backbone` only; remove this key")
    if isinstance(value, dict):
        for inner, item in value.items():
            _refuse_value(inner, item, f"{where}.{inner}")
    elif isinstance(value, list | tuple | set):  # YAML has `!!pairs` and `!!set` too
        for i, item in enumerate(value):
            _refuse_value(key, item, f"{where}.{i}")
    elif isinstance(value, str | bytes):
        allowed, example = (_LAYER, "nn.LayerNorm") if key == "norm_layer" else (_WORD, "bilinear")
        if isinstance(value, bytes) or not allowed.fullmatch(value):
            raise ConfigError(
                f"{where}: {reprlib.repr(value)} is not the kind of name that belongs here; write one such as {example}"
            )


def refuse_harmful(cfg: dict, where: str) -> None:
    """Looks at every argument of a component of PaddleSeg, nested components left out.

    Raises:
        ConfigError: names the dotted key, the value and what may stand there.
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
    """Refuses a dataset of PaddleSeg without its folder: it would fetch an archive and unpack it wherever its names lead.

    Raises:
        ConfigError: `dataset_root` is not an existing folder.
    """
    if not is_of_paddleseg(cls) or "dataset_root" not in inspect.signature(cls).parameters:
        return
    root = cfg.get("dataset_root")
    if not isinstance(root, str) or not os.path.isdir(root):
        raise ConfigError(
            f"{where}.dataset_root: {reprlib.repr(root)} is no folder; put the data of {cfg['type']} there first"
        )
