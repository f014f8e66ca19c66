# SPDX-License-Identifier: Apache-2.0
"""Reads, validates and writes deploy.yaml, the description of an exported folder.

The section `Deploy` has PaddleSeg's keys (`model`, `params`, `transforms`, `input_shape`, `output_op`, `output_dtype`)
and, among others, `class_names`, `class_colors`, `verified` (results of the comparison) and `sha256` (of the files).
"""

import reprlib
from pathlib import Path, PurePosixPath

from paddle_dnl.config.reading import read_yaml_mapping, to_yaml
from paddle_dnl.data.classes import ClassInfo
from paddle_dnl.data.images.bands import require_value_range
from paddle_dnl.deployment.runtime.deploy_config import (
    FILE_NAME,
    ONNX_KEYS,
    ONNX_NAME,
    OUTPUT_OPS,
    DeployConfig,
    require_input_size,
)
from paddle_dnl.errors import ConfigError, DataError, ExportError
from paddle_dnl.files.atomic import write_text
from paddle_dnl.weights.manifest import require_unbroken_seal, seal

# PaddleSeg writes inference.yml with --for_fd and for PaddleX, with additional sections for PaddleX's settings.
_NAMES = (FILE_NAME, "inference.yml")
_PADDLEX_SECTIONS = ("Global", "Hpi")
_ENDINGS = {"model": (".pdmodel", ".json"), **{key: (".onnx",) for key in ONNX_KEYS}}


def write_deploy_config(files: DeployConfig) -> None:
    """Writes the description of an export into its folder, before `deployment.export.install` installs it."""
    section = {
        "model": files.model,
        "params": files.params,
        "transforms": files.transforms,
        "input_shape": files.input_shape,
        "output_op": files.output_op,
        "output_dtype": files.output_dtype,
    }
    for key in ONNX_KEYS:
        if getattr(files, key):
            section[key] = getattr(files, key)
    if files.classes:
        section["class_names"] = list(files.classes.names)
        section["class_colors"] = [list(color) for color in files.classes.colors]
    section["ignore_index"] = files.ignore_index
    if files.label_map is not None:
        section["label_map"] = files.label_map
    if files.value_range is not None:
        section["value_range"] = list(files.value_range)
    if files.components:
        section["components"] = files.components
    section["verified"] = files.verified
    section["sha256"] = files.sha256
    write_text(files.folder / files.name, seal(to_yaml({"Deploy": section})), own=True)


def _inside(folder: Path, name, key: str, path: Path) -> str:
    """Checks that a value is the name of a file in the folder, and returns it.

    Raises:
        ConfigError: not a file name, or a path or a symbolic link that leads out of the folder.
    """
    if not isinstance(name, str) or not name:
        raise ConfigError(f"{path}: Deploy.{key}: expected a file name, got {name!r}")
    pure = PurePosixPath(name.replace("\\", "/"))
    if pure.is_absolute() or ".." in pure.parts or ":" in name:
        raise ConfigError(f"{path}: Deploy.{key}: {reprlib.repr(name)} leads out of the exported folder")
    if not pure.name:
        raise ConfigError(f"{path}: Deploy.{key}: {name!r} is the folder itself, expected the name of a file in it")
    # Backends and `operators.py`, which derive the format from the file name, must agree on it.
    endings = _ENDINGS.get(key, ("",))
    if not name.endswith(endings) or (endings != ("",) and ".json" in name.removesuffix(".json")):
        raise ConfigError(f"{path}: Deploy.{key}: {reprlib.repr(name)} must end with {' or '.join(endings)}")
    try:
        (folder / name).exists()  # raises for names that are too long, unlike `resolve`
        inside = (folder / name).resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError) as error:  # also for a loop of links or a NUL byte
        raise ConfigError(f"{path}: Deploy.{key}: {reprlib.repr(name)} cannot be the name of a file") from error
    if not inside:
        raise ConfigError(f"{path}: Deploy.{key}: {name!r} is a link out of the exported folder")
    return name


def _existing(folder: Path, name: str, path: Path, key: str) -> str:
    """Returns `name`, or the .json graph of Paddle 3 where it is missing (PaddleSeg always records .pdmodel)."""
    if (folder / name).is_file():
        return name
    other = name.removesuffix(".pdmodel") + ".json"
    if name.endswith(".pdmodel") and (folder / other).is_file():
        return other
    raise ExportError(f"{folder / name}: missing, though {path} names it as Deploy.{key}; export the model again")


def _shape(value, path: Path) -> list | None:
    if value is None:
        return None
    fits = isinstance(value, list) and len(value) == 4
    if not fits or not all(v is None or (type(v) is int and (v == -1 or 0 < v < 1 << 20)) for v in value):
        shown = reprlib.repr(value)
        raise ConfigError(f"{path}: Deploy.input_shape: expected [N, C, H, W], -1 where free; got {shown}")
    require_input_size(value, f"{path}: Deploy.input_shape")
    return value


def _classes(section: dict, path: Path) -> ClassInfo | None:
    names, colors = section.get("class_names"), section.get("class_colors")
    if names is None or colors is None:
        return None
    fits = isinstance(names, list) and isinstance(colors, list) and len(names) == len(colors)
    if not fits or not all(
        isinstance(c, list) and len(c) == 3 and all(isinstance(v, int) and 0 <= v <= 255 for v in c) for c in colors
    ):
        raise ConfigError(f"{path}: Deploy.class_names and class_colors: expected a name and [r, g, b] per class")
    return ClassInfo(tuple(map(str, names)), tuple(tuple(color) for color in colors))


def _mapping(section: dict, key: str, kind: type, path: Path) -> dict:
    """Returns the mapping `key`, whose values must have type `kind`; empty if the key is missing."""
    value = section.get(key) or {}
    if not isinstance(value, dict) or not all(isinstance(item, kind) for item in value.values()):
        raise ConfigError(f"{path}: Deploy.{key}: expected a mapping of {kind.__name__} values, got {value!r}")
    return value


def is_exported(folder: Path) -> bool:
    """Whether the folder contains an exported model's description."""
    return any((folder / name).is_file() for name in _NAMES)


def read_deploy_config(path: str | Path) -> DeployConfig:
    """Reads the description of an exported folder (`deploy.yaml`, or PaddleSeg's and PaddleX's `inference.yml`).

    Args:
        path: the folder or the file.

    Raises:
        ConfigError: missing file, invalid YAML, a missing or malformed key, or a path that leads out of the folder.
        ExportError: a file that the description names is missing.
    """
    path = Path(path)
    if path.is_dir():
        path = next((path / name for name in _NAMES if (path / name).is_file()), path / FILE_NAME)
    try:
        content = read_yaml_mapping(path)
    except ConfigError as error:
        raise ConfigError(f"{error}; correct the file, or export the model again") from error
    require_unbroken_seal(path)
    section = content.get("Deploy")
    if not isinstance(section, dict):
        raise ConfigError(f"{path}: no `Deploy` section; is this the deploy.yaml of an exported model?")
    for key in content:
        if key not in ("Deploy", "checksum", *_PADDLEX_SECTIONS):
            raise ConfigError(f"{path}: {key}: unknown key beside Deploy; remove it, or export the model again")
    for key in ("model", "params"):
        if key not in section:
            raise ConfigError(f"{path}: Deploy.{key}: missing")
    folder = path.parent
    transforms = section.get("transforms") or []
    if not isinstance(transforms, list) or not all(isinstance(t, dict) and "type" in t for t in transforms):
        raise ConfigError(f"{path}: Deploy.transforms: expected a list of mappings with a `type` key")
    output_op = section.get("output_op", "argmax")
    if output_op not in OUTPUT_OPS:
        raise ConfigError(f"{path}: Deploy.output_op: must be one of {', '.join(OUTPUT_OPS)}; got {output_op!r}")
    names = {key: _inside(folder, section[key], key, path) for key in ("model", "params")}
    ignore_index, label_map = section.get("ignore_index", 255), section.get("label_map")
    if type(ignore_index) is not int:
        raise ConfigError(f"{path}: Deploy.ignore_index: expected a whole number, got {ignore_index!r}")
    if label_map is not None and (not isinstance(label_map, list) or not all(type(v) is int for v in label_map)):
        raise ConfigError(f"{path}: Deploy.label_map: expected a list of whole numbers, got {reprlib.repr(label_map)}")
    try:
        value_range = require_value_range(section.get("value_range"), "Deploy.value_range")
    except DataError as error:
        raise ConfigError(f"{path}: {error}") from error
    onnx_names = {key: section.get(key) for key in ONNX_KEYS}
    onnx_names["onnx"] = onnx_names["onnx"] or (ONNX_NAME if (folder / ONNX_NAME).is_file() else None)
    return DeployConfig(
        folder=folder,
        model=_existing(folder, names["model"], path, "model"),
        params=_existing(folder, names["params"], path, "params"),
        transforms=transforms,
        input_shape=_shape(section.get("input_shape"), path),
        output_op=output_op,
        output_dtype=section.get("output_dtype", "int32"),
        classes=_classes(section, path),
        verified=_mapping(section, "verified", dict, path),
        sha256=_mapping(section, "sha256", str, path),
        **{key: _inside(folder, name, key, path) if name else None for key, name in onnx_names.items()},
        ignore_index=ignore_index,
        label_map=label_map,
        value_range=value_range,
        name=path.name,
        components=_mapping(section, "components", str, path),
    )
