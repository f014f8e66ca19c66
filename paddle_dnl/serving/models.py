# SPDX-License-Identifier: Apache-2.0
"""Names of the models of a service: `--model DIR`, `--model NAME=DIR` several times, or a folder of exported folders."""

import re
from collections.abc import Iterable
from pathlib import Path

from paddle_dnl.errors import UsageError

# Names appear in URLs and metrics.
_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}"


def split_models(text: str) -> list[str]:
    """Splits `a=DIR,b=DIR` at the commas in front of `NAME=`; other commas belong to a path."""
    return re.split(rf",(?={_NAME}=)", text)


def find_models(given: Iterable[str]) -> dict[str, Path]:
    """Name -> exported folder (or deploy.yaml), in the order given; models of one folder in the order of their names.

    An exported folder without a given name is named after the folder. A folder that contains exported folders stands for all of
    them.

    Raises:
        UsageError: two models have the same name.
    """
    found: dict[str, Path] = {}
    for text in given:
        named = re.fullmatch(rf"({_NAME})=(.+)", text, re.S)
        if named and not Path(text).exists():
            models = {named[1]: Path(named[2])}
        else:
            models = {_name_of(path): path for path in _exported(Path(text))}
        for name, path in models.items():
            if name in found:
                raise UsageError(f"--model: two models are called {name}; name them: --model NAME={path}")
            found[name] = path
    return found


def _exported(path: Path) -> list[Path]:
    """The path itself if it is an exported folder or contains none, else the exported folders in it."""
    from paddle_dnl.deployment.runtime.deploy_config import is_exported  # not for --help: it imports OpenCV

    if is_exported(path) or not path.is_dir():
        return [path]
    return sorted(entry for entry in path.iterdir() if is_exported(entry)) or [path]


def _name_of(path: Path) -> str:
    """The folder's name, with characters that a model name may not have replaced."""
    folder = path.resolve().parent if path.suffix in (".yaml", ".yml") else path.resolve()
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", folder.name)[:100]
    return name if re.fullmatch(_NAME, name) else f"model{name}"[:100]
