# SPDX-License-Identifier: Apache-2.0
"""Components of an installed PaddleSeg by name: the release on PyPI (2.8.0) or a git checkout of its develop branch.

Only this module imports PaddleSeg, and only when one of its components is requested.
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
# Submodules whose import fills PaddleSeg's registries.
_MODULES = ("models", "datasets", "transforms", "optimizers")


def is_installed() -> bool:
    """Whether PaddleSeg is installed; does not import it."""
    return importlib.util.find_spec(PACKAGE) is not None


def version() -> str:
    """Returns the installed version, `not installed`, or `unknown version` for a checkout on the search path."""
    if not is_installed():
        return "not installed"
    try:
        return importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        return "unknown version"


def install_hint() -> str:
    """Returns a sentence for errors about unknown names: how to install PaddleSeg if it is missing, else empty."""
    return "" if is_installed() else f" If it is one of PaddleSeg's: {INSTALL}"


@functools.cache
def _manager():
    try:
        for name in _MODULES:
            if importlib.util.find_spec(f"{PACKAGE}.{name}") is not None:  # up to 2.7 there is no module `optimizers`
                importlib.import_module(f"{PACKAGE}.{name}")
        return importlib.import_module(f"{PACKAGE}.cvlibs.manager")
    # The import runs code of OpenCV, SciPy, scikit-learn and others, whose versions may be incompatible.
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise ConfigError(
            f"the installed PaddleSeg ({version()}) cannot be imported ({reason}); install compatible versions: {INSTALL}"
        ) from error


def manager(kind: str):
    """Returns PaddleSeg's registry of one kind.

    Raises:
        ConfigError: PaddleSeg is missing or cannot be imported.
    """
    if not is_installed():
        raise ConfigError(f"PaddleSeg is not installed: {INSTALL}")
    module = _manager()
    return getattr(module, _MANAGERS[kind], None) or module.ComponentManager(kind)


def names(kind: str) -> list[str]:
    """Returns the names in PaddleSeg's registry of one kind; none if it is not installed."""
    return list(manager(kind).components_dict) if is_installed() else []


def find(name: str, kind: str):
    """Returns PaddleSeg's component of this name, or None.

    Raises:
        ConfigError: PaddleSeg is installed but cannot be imported.
    """
    return manager(kind).components_dict.get(name) if is_installed() else None
