# SPDX-License-Identifier: Apache-2.0
"""User-defined transforms of an exported model: records their modules at export, and requires them at loading."""

from collections.abc import Iterator

from paddle_dnl import registry
from paddle_dnl.deployment.runtime.deploy_config import DeployConfig
from paddle_dnl.errors import ConfigError, ExportError

_KNOWN = ("paddle_dnl", "paddleseg")


def modules_of(transforms: list[dict]) -> dict[str, str]:
    """Returns transform -> module for the transforms that neither this package nor PaddleSeg defines.

    Raises:
        ExportError: a transform is defined in the running program (`__main__`), which other programs cannot import.
        ConfigError: an unknown transform.
    """
    found = {}
    for name, where in _names(transforms, "val_dataset.transforms"):
        module = registry.find(name, "transform", where).__module__
        if module == "__main__":
            raise ExportError(
                f"{where}: {name} is defined in the program that runs; move it to a separate module, so that other programs "
                "that run the exported model can import it"
            )
        if module.split(".")[0] not in _KNOWN:
            found[name] = module
    return found


def _names(transforms: list[dict], where: str) -> Iterator[tuple[str, str]]:
    """Yields (name, dotted key) of all transforms, including nested ones."""
    for i, step in enumerate(transforms):
        yield step["type"], f"{where}.{i}"
        for inner, kind, place in registry.nested(step, "transform", f"{where}.{i}"):
            if kind == "transform":
                yield inner["type"], place


def require_modules(files: DeployConfig) -> None:
    """Checks that the model's user-defined transforms are registered.

    Raises:
        ConfigError: a transform is missing; the message says which module to import, and how.
    """
    if not files.components:  # `registry.names` imports PaddleSeg, which takes seconds
        return
    known = registry.names("transform")
    for name, module in files.components.items():
        if name not in known:
            raise ConfigError(
                f"{files.folder / files.name}: Deploy.transforms needs {name} of the module {module}, which is not part of the "
                f"folder: import it before loading the model; programs take --custom_imports {module} (or {module}.py)"
            )
