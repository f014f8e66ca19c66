# SPDX-License-Identifier: Apache-2.0
"""Names of the models of a service: `--model DIR`, `--model NAME=DIR` several times, or a folder of exported folders."""

import re
from collections.abc import Iterable
from pathlib import Path

from paddle_dnl.deployment.model_names import NAME, name_from
from paddle_dnl.errors import UsageError


def split_models(text: str) -> list[str]:
    """Splits `a=DIR,b=DIR` at the commas in front of `NAME=`; other commas belong to a path."""
    return re.split(rf",(?={NAME}=)", text)


def find_models(given: Iterable[str]) -> dict[str, Path]:
    """Name -> exported folder (or deploy.yaml), in the order given; models of one folder in the order of their names.

    An exported folder without a given name is named after the folder. A folder that contains exported folders stands for all of
    them.

    Raises:
        UsageError: two models have the same name.
    """
    found: dict[str, Path] = {}
    for text in given:
        named = re.fullmatch(rf"({NAME})=(.+)", text, re.S)
        if named and not Path(text).exists():
            models = [(named[1], Path(named[2]))]
        else:
            models = []
            for path in _exported(Path(text)):
                folder = path.resolve().parent if path.suffix in (".yaml", ".yml") else path.resolve()
                models.append((name_from(folder.name), path))
        for name, path in models:
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
