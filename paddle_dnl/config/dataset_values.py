# SPDX-License-Identifier: Apache-2.0
"""Values that datasets determine for the rest of a configuration: the ignored label and the class names."""

import inspect
from pathlib import Path

from paddle_dnl import registry
from paddle_dnl.data.classes import FILE_NAME, named_classes, read_classes
from paddle_dnl.errors import ConfigError, DataError
from paddle_dnl.log import logger

SECTIONS = ("train_dataset", "val_dataset")
# Arguments of transforms, ours and PaddleSeg's, that stand for the ignored label.
_IGNORED = ("ignore_index", "label_padding_value")


def carry_ignored(config: dict, ignore_index: dict[str, int | None], num_classes: int | None) -> None:
    """Fills in the ignored label of each dataset's transforms, in place.

    Args:
        config: a whole configuration.
        ignore_index: section -> the ignored label of its dataset, None where that is not known.
        num_classes: of the model.

    Raises:
        ConfigError: a transform that pads labels with what is neither a class nor ignored.
    """
    for section in SECTIONS:
        if config.get(section) and ignore_index.get(section) is not None:
            _into_transforms(config[section], ignore_index[section], num_classes, section)


def name_classes(config: dict, num_classes: int | None) -> None:
    """Fills in names and colours of the classes, and the ignored label, from each dataset's `classes.txt`, in place.

    Args:
        config: a whole configuration.
        num_classes: of the model.

    Raises:
        ConfigError: class names or colours that do not fit the number of classes, or differ.
    """
    for section in SECTIONS:
        if config.get(section):
            _name_classes(config[section], num_classes, section)
    given = [config[section]["class_names"] for section in SECTIONS if (config.get(section) or {}).get("class_names")]
    if len(given) == 2 and given[0] != given[1]:
        i = next(i for i, pair in enumerate(zip(*given, strict=True)) if pair[0] != pair[1])
        raise ConfigError(
            f"train_dataset.class_names and val_dataset.class_names: class {i} is {given[0][i]!r} in one and "
            f"{given[1][i]!r} in the other"
        )


def _into_transforms(cfg: dict, ignored: int, num_classes: int | None, where: str) -> None:
    for i, step in enumerate(cfg.get("transforms") or []):
        place = f"{where}.transforms.{i}"
        parameters = inspect.signature(registry.find(step["type"], "transform", place)).parameters
        for key in _IGNORED:
            if key not in parameters:
                continue
            if key not in step and parameters[key].default != ignored:
                step[key] = ignored
            value = step.get(key, ignored)
            # Padding with a class, such as background, may be meant.
            is_class = key == "label_padding_value" and type(value) is int and 0 <= value < (num_classes or 0)
            if value != ignored and not is_class:
                raise ConfigError(
                    f"{place}.{key}: is {value}, but the dataset ignores {ignored}; remove this key, it follows the dataset's"
                )
        _into_transforms(step, ignored, num_classes, place)


def _name_classes(cfg: dict, num_classes: int | None, where: str) -> None:
    """Checks `class_names` and `class_colors`, or takes them from a `classes.txt` beside the list or in dataset_root.

    Such a file also tells the ignored label where the dataset takes one and none is given.
    """
    parameters = inspect.signature(registry.find(cfg["type"], "dataset", where)).parameters
    try:
        if cfg.get("class_names"):
            classes = named_classes(cfg["class_names"], cfg.get("class_colors"))
            source = f"{where}.class_names"
        elif cfg.get("class_colors"):
            raise ConfigError(f"{where}.class_colors: given without class_names")
        elif "class_names" in parameters:
            folders = [
                Path(cfg[key]).parent
                for key in ("train_path", "val_path", "test_path")
                if isinstance(cfg.get(key), str)
            ]
            if isinstance(cfg.get("dataset_root"), str):
                folders.append(Path(cfg["dataset_root"]))
            source = next((folder / FILE_NAME for folder in folders if (folder / FILE_NAME).is_file()), None)
            if source is None:
                return
            classes = read_classes(source)
        else:
            return
    except DataError as error:
        raise ConfigError(f"{where}: {error}") from error
    if num_classes is not None and len(classes.names) != num_classes:
        text = f"{source}: names {len(classes.names)} classes, the configuration has num_classes {num_classes}"
        if cfg.get("class_names"):
            raise ConfigError(text)
        logger.warning(f"{text}; the names are not used")
        return
    cfg["class_names"] = list(classes.names)
    cfg["class_colors"] = [list(color) for color in classes.colors]
    says = classes.ignore_index
    if says is not None and "ignore_index" in parameters and says != parameters["ignore_index"].default:
        cfg.setdefault("ignore_index", says)
