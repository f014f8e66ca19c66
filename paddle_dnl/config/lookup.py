# SPDX-License-Identifier: Apache-2.0
"""Finds configurations: by path, or by name among those that travel with the package.

In a checkout they are in `configs/`; in an installed package the same folder is `paddle_dnl/configs/`.
"""

import difflib
import functools
from pathlib import Path

from paddle_dnl.errors import ConfigError
from paddle_dnl.log import logger

SUFFIXES = (".yml", ".yaml")
_PACKAGE = Path(__file__).resolve().parent.parent


@functools.cache
def zoo_folder() -> Path:
    """The folder of the configurations of the model zoo.

    Raises:
        ConfigError: the package was installed without them.
    """
    for folder in (_PACKAGE / "configs", _PACKAGE.parent / "configs"):
        if (folder / "zoo.yml").is_file():
            return folder
    raise ConfigError(f"{_PACKAGE}: the configurations of the model zoo are missing; install the package again")


@functools.cache
def zoo_configs() -> dict[str, Path]:
    """Paths of the zoo's configurations by name; a name is the file's, without its ending."""
    folder = zoo_folder()
    found = [path for path in sorted(folder.rglob("*.yml")) if path.parent != folder and "_base_" not in path.parts]
    return {path.stem: path for path in found}


def find_config(given: str | Path) -> Path:
    """The configuration file that is meant: `given` where it exists, else the zoo's of that name.

    Folders in a name are ignored, so that `configs/dnlnet_x.yml` finds `configs/dnlnet/dnlnet_x.yml`; what is taken in
    place of a path is logged.

    Raises:
        ConfigError: no such file and no such name; names the nearest of both.
    """
    path = Path(given)
    try:
        if path.exists():
            return path
    except (OSError, ValueError):  # a name that is too long, or with a zero byte: the reader says so
        return path
    name = path.stem if path.suffix in SUFFIXES else path.name
    zoo = zoo_configs()
    if name in zoo:
        if path.name != str(path):
            logger.info(f"{path}: no such file; using the installed configuration of this name, {zoo[name]}")
        return zoo[name]
    beside = {p.stem: p for suffix in SUFFIXES for p in path.parent.glob(f"*{suffix}")} if path.parent.is_dir() else {}
    close = difflib.get_close_matches(name, [*beside, *zoo], n=1, cutoff=0.6)
    hint = f" Did you mean {str(beside.get(close[0], close[0]))!r}?" if close else ""
    raise ConfigError(f"{shown(path)}: no such configuration file.{hint} `paddle-dnl configs` lists the installed ones")


def shown(path: Path) -> str:
    """The path for an error of one line; of one that fills pages only its end."""
    text = str(path)
    text = text if len(text) <= 300 else f"...{text[-300:]}"
    return text if text.isprintable() else repr(text)
