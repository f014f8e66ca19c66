# SPDX-License-Identifier: Apache-2.0
"""Components of an installed PaddleSeg by name: the release on PyPI (2.8.0) or a git checkout of its develop branch.

The only place from which PaddleSeg is imported, and only when something asks for one of its names.
"""

import functools
import importlib
import importlib.metadata
import importlib.util

from paddle_dnl.errors import ConfigError

PACKAGE = "paddleseg"
INSTALL = "pip install 'paddleseg>=2.8' 'numpy<2'"

# Kind -> name of PaddleSeg's registry.
_MANAGERS = {
    "model": "MODELS",
    "backbone": "BACKBONES",
    "dataset": "DATASETS",
    "transform": "TRANSFORMS",
    "loss": "LOSSES",
    "optimizer": "OPTIMIZERS",
}
# Their import fills PaddleSeg's registries.
_MODULES = ("models", "datasets", "transforms", "optimizers")


def is_installed() -> bool:
    """Whether there is a PaddleSeg to import; it is not imported."""
    return importlib.util.find_spec(PACKAGE) is not None


def version() -> str:
    """The installed version, `not installed`, or `unknown version` of a checkout on the search path."""
    if not is_installed():
        return "not installed"
    try:
        return importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        return "unknown version"


def install_hint() -> str:
    """A sentence for errors about unknown names: what to install where PaddleSeg is missing, else an empty string."""
    return "" if is_installed() else f" If it is one of PaddleSeg's: {INSTALL}"


@functools.cache
def _manager():
    try:
        for name in _MODULES:
            if importlib.util.find_spec(f"{PACKAGE}.{name}") is not None:  # up to 2.7 there are no optimizers
                importlib.import_module(f"{PACKAGE}.{name}")
        return importlib.import_module(f"{PACKAGE}.cvlibs.manager")
    # Importing it runs code of OpenCV, SciPy, scikit-learn and others, whose versions may not fit together.
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise ConfigError(
            f"the installed PaddleSeg ({version()}) cannot be imported ({reason}); install a matching set: {INSTALL}"
        ) from error


def manager(kind: str):
    """PaddleSeg's registry of one kind.

    Raises:
        ConfigError: PaddleSeg is missing or cannot be imported.
    """
    if not is_installed():
        raise ConfigError(f"PaddleSeg is not installed: {INSTALL}")
    module = _manager()
    return getattr(module, _MANAGERS[kind], None) or module.ComponentManager(kind)


def names(kind: str) -> list[str]:
    """Names in PaddleSeg's registry of one kind; none where it is not installed."""
    return list(manager(kind).components_dict) if is_installed() else []


def find(name: str, kind: str):
    """PaddleSeg's component of this name, or None.

    Raises:
        ConfigError: PaddleSeg is installed and cannot be imported.
    """
    return manager(kind).components_dict.get(name) if is_installed() else None
