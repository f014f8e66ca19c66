# SPDX-License-Identifier: Apache-2.0
"""User transforms in an exported folder: records the module of each, and names it when it is missing."""

from collections.abc import Iterator

from paddle_dnl import registry
from paddle_dnl.deployment.runtime.deploy_config import DeployConfig
from paddle_dnl.errors import ConfigError, ExportError

_KNOWN = ("paddle_dnl", "paddleseg")


def modules_of(transforms: list[dict]) -> dict[str, str]:
    """Transform -> module, for transforms that are in neither this package nor PaddleSeg.

    Raises:
        ExportError: one that is defined in the running program itself, which no other program can import.
        ConfigError: an unknown transform.
    """
    found = {}
    for name, where in _names(transforms, "val_dataset.transforms"):
        module = registry.find(name, "transform", where).__module__
        if module == "__main__":
            raise ExportError(
                f"{where}: {name} is defined in the program that runs; put it into a module of its own, so that whoever runs "
                "the exported model can import it"
            )
        if module.split(".")[0] not in _KNOWN:
            found[name] = module
    return found


def _names(transforms: list[dict], where: str) -> Iterator[tuple[str, str]]:
    """(name, dotted key) of transforms, including nested ones."""
    for i, step in enumerate(transforms):
        yield step["type"], f"{where}.{i}"
        for inner, kind, place in registry.nested(step, "transform", f"{where}.{i}"):
            if kind == "transform":
                yield inner["type"], place


def require_modules(files: DeployConfig) -> None:
    """Refuses a missing transform and names its module.

    Raises:
        ConfigError: says which module to import, and how.
    """
    if not files.components:  # listing the known names imports PaddleSeg, which takes seconds
        return
    known = registry.names("transform")
    for name, module in files.components.items():
        if name not in known:
            raise ConfigError(
                f"{files.folder / files.name}: Deploy.transforms needs {name} of the module {module}, which is not part of the "
                f"folder: import it before the model is loaded, for programs by --custom_imports {module} (or {module}.py)"
            )
