# SPDX-License-Identifier: Apache-2.0
"""Values that datasets determine for the rest of a configuration: classes and their names, channels, the ignored label."""

import inspect
from pathlib import Path

from paddle_dnl import registry
from paddle_dnl.data.classes import FILE_NAME, named_classes, read_classes
from paddle_dnl.errors import ConfigError, DataError
from paddle_dnl.log import logger

SECTIONS = ("train_dataset", "val_dataset")
# Arguments of transforms, ours and PaddleSeg's, that stand for the ignored label.
_IGNORED = ("ignore_index", "label_padding_value")


def match_datasets(config: dict) -> int:
    """Fills in, in place, what PaddleSeg fills in: number of classes and channels of the model, ignored label, class names.

    Args:
        config: a whole configuration, checked section by section.

    Returns:
        The number of classes.

    Raises:
        ConfigError: sections that disagree; names them and their values.
    """
    model = config["model"]
    classes = _of_datasets(config, "num_classes", "NUM_CLASSES")
    classes = _one_value({**classes, "model.num_classes": model.get("num_classes")}, "numbers of classes")
    if classes is None:
        raise ConfigError(f"{'train_dataset' if config.get('train_dataset') else 'model'}.num_classes: missing")
    if _takes(registry.find(model["type"], "model", "model"), "num_classes"):
        model["num_classes"] = classes
    for section in SECTIONS:
        cfg = config.get(section)
        if cfg and "num_classes" in inspect.signature(registry.find(cfg["type"], "dataset", section)).parameters:
            cfg.setdefault("num_classes", classes)
    holder, where = model, "model"
    if isinstance(model.get("backbone"), dict):
        holder, where = model["backbone"], "model.backbone"
    channels = _of_datasets(config, "img_channels", "IMG_CHANNELS")
    agreed = _one_value({**channels, f"{where}.in_channels": holder.get("in_channels")}, "numbers of image channels")
    if agreed not in (None, 3):
        cls = registry.find(model["type"], "model", "model")
        cls = cls if holder is model else registry.find(holder["type"], "backbone", where, cls)
        if not _takes(cls, "in_channels"):
            raise ConfigError(f"{where}: {holder['type']} has no in_channels, so it takes 3 channels, not {agreed}")
        holder["in_channels"] = agreed
    name_classes(config, classes)
    ignored = _of_datasets(config, "ignore_index", "IGNORE_INDEX")
    for i, loss in enumerate((config.get("loss") or {}).get("types", [])):
        _set_ignore_index(loss, ignored, f"loss.types.{i}")
    carry_ignored(config, {where.split(".")[0]: value for where, value in ignored.items()}, classes)
    return classes


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


def _one_value(sources: dict[str, object], what: str):
    """The value, where all sources that give one give the same; else None."""
    given = {where: value for where, value in sources.items() if value is not None}
    if len(set(given.values())) > 1:
        raise ConfigError(f"{what} disagree: {', '.join(f'{where} = {value}' for where, value in given.items())}")
    return next(iter(given.values()), None)


def _of_datasets(config: dict, argument: str, attribute: str) -> dict[str, object]:
    """What each dataset says about `argument`: its configuration, or the class for datasets of fixed content."""
    values = {}
    for section in SECTIONS:
        cfg = config.get(section)
        if cfg:
            cls = registry.find(cfg["type"], "dataset", section)
            parameter = inspect.signature(cls).parameters.get(argument)
            default = None if parameter is None or parameter.default is parameter.empty else parameter.default
            values[f"{section}.{argument}"] = cfg.get(argument, getattr(cls, attribute, default))
    return values


def _takes(cls, argument: str) -> bool:
    parameters = inspect.signature(cls).parameters
    return argument in parameters or any(p.kind == p.VAR_KEYWORD for p in parameters.values())


def _set_ignore_index(loss: dict, ignored: dict[str, object], where: str) -> None:
    for i, inner in enumerate(loss.get("losses", [])):
        _set_ignore_index(inner, ignored, f"{where}.losses.{i}")
    if "ignore_index" in inspect.signature(registry.find(loss["type"], "loss", where)).parameters:
        agreed = _one_value({**ignored, f"{where}.ignore_index": loss.get("ignore_index")}, "values of ignore_index")
        if agreed is not None:
            loss["ignore_index"] = agreed
