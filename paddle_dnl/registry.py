"""Names in a configuration -> classes: ours first, then those of paddleseg.

A YAML that names any working PaddleSeg component trains here too; where one of theirs is broken on today's Paddle, ours of
the same name wins. paddleseg's own registries are not touched (see `paddle_dnl.paddleseg_plugin` for that, on request).
"""

import difflib
import importlib
import inspect
import os
import re
import reprlib
from collections.abc import Iterator

from paddle_dnl.errors import ConfigError, PaddleDnlError

from paddleseg.cvlibs import manager
from paddleseg.cvlibs.manager import ComponentManager

MODELS = ComponentManager("models")
BACKBONES = ComponentManager("backbones")
DATASETS = ComponentManager("datasets")
TRANSFORMS = ComponentManager("transforms")
LOSSES = ComponentManager("losses")
OPTIMIZERS = ComponentManager("optimizers")

_REGISTRIES = {
    "model": (MODELS, manager.MODELS),
    "backbone": (BACKBONES, manager.BACKBONES),
    "dataset": (DATASETS, manager.DATASETS),
    "transform": (TRANSFORMS, manager.TRANSFORMS),
    "loss": (LOSSES, manager.LOSSES),
    "optimizer": (OPTIMIZERS, manager.OPTIMIZERS),
}

# Which registry a nested `{type: ...}` belongs to, by the name of the argument that holds it.
_KIND_OF_ARGUMENT = {"backbone": "backbone", "transforms": "transform", "losses": "loss"}

# The modules whose import fills our registries.
_COMPONENT_MODULES = (
    "paddle_dnl.models",
    "paddle_dnl.losses",
    "paddle_dnl.optim",
    "paddle_dnl.data.datasets",
    "paddle_dnl.data.transforms",
    "paddleseg.models",
    "paddleseg.datasets",
    "paddleseg.transforms",
    "paddleseg.optimizers",
)


def load_components() -> None:
    """Imports every module that registers components; cheap when already done."""
    for name in _COMPONENT_MODULES:
        importlib.import_module(name)


def registries() -> list[tuple[ComponentManager, ComponentManager]]:
    """Our registry and paddleseg's, for each kind."""
    return list(_REGISTRIES.values())


def names(kind: str) -> list[str]:
    """All component names of one kind, sorted."""
    load_components()
    return sorted({name for registry in _REGISTRIES[kind] for name in registry.components_dict})


def nearest(name: str, options) -> str:
    """` Did you mean 'X'?` or, where nothing is close, an empty string."""
    options = list(options)
    same = [option for option in options if option.lower() == str(name).lower()]
    close = same or difflib.get_close_matches(str(name), options, n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""


def find(name: str, kind: str, where: str) -> type:
    """The class registered under `name`.

    Raises:
        ConfigError: no component of this kind has that name; the message holds the nearest one.
    """
    load_components()
    if isinstance(name, str):
        for registry in _REGISTRIES[kind]:
            if name in registry.components_dict:
                return registry[name]
    raise ConfigError(f"{where}.type: there is no {kind} named {name!r}.{nearest(name, names(kind))}")


def kind_of(argument: str, parent_kind: str) -> str:
    """The kind of a nested component, from the name of the argument that holds it."""
    return _KIND_OF_ARGUMENT.get(argument, parent_kind)


def is_component(value) -> bool:
    """Whether a configuration value describes a component to be built."""
    return isinstance(value, dict) and "type" in value


def nested(cfg: dict, kind: str, where: str) -> Iterator[tuple[dict, str, str]]:
    """The components directly inside `cfg`, as (configuration, kind, dotted key)."""
    for key, value in cfg.items():
        if is_component(value):
            yield value, kind_of(key, kind), f"{where}.{key}"
        elif isinstance(value, list):
            for i, item in enumerate(value):
                if is_component(item):
                    yield item, kind_of(key, kind), f"{where}.{key}.{i}"


# Text for a component of paddleseg is a word such as `bilinear` or `NCHW`. Some of them run their text as Python, so what
# could be more than a word does not reach them.
_WORD = re.compile(r"[\w.-]*", re.ASCII)
_LAYER = re.compile(r"nn\.[A-Za-z]\w*", re.ASCII)


def _refuse_harm(key: str, value, where: str) -> None:
    """One argument of a component of paddleseg, with all mappings and lists in it."""
    if key == "pretrained" and value is not None:
        raise ConfigError(f"{where}: start weights are read for `model` and `model.backbone` only; remove this key")
    if isinstance(value, dict):
        for inner, item in value.items():
            _refuse_harm(inner, item, f"{where}.{inner}")
    elif isinstance(value, list | tuple | set):  # YAML has `!!pairs` and `!!set` too
        for i, item in enumerate(value):
            _refuse_harm(key, item, f"{where}.{i}")
    elif isinstance(value, str | bytes):
        allowed, example = (_LAYER, "nn.LayerNorm") if key == "norm_layer" else (_WORD, "bilinear")
        if isinstance(value, bytes) or not allowed.fullmatch(value):
            raise ConfigError(
                f"{where}: {reprlib.repr(value)} is not the kind of name that belongs here; write one such as {example}"
            )


def _is_of_paddleseg(cls) -> bool:
    """Not ours, and not a user's own that was put into paddleseg's registries."""
    return cls.__module__.split(".")[0] == "paddleseg"


def refuse_harmful(cfg: dict, kind: str, where: str) -> None:
    """Refuses arguments with which a component of paddleseg would run text or unpickle weights; ours do neither.

    Nested components are left out: each is looked at when its turn comes.

    Raises:
        ConfigError: names the dotted key, the value and what may stand there.
    """
    if kind == "dataset" or not _is_of_paddleseg(find(cfg["type"], kind, where)):
        return
    for key, value in cfg.items():
        items = {f"{where}.{key}": value}
        if isinstance(value, list):
            items = {f"{where}.{key}.{i}": item for i, item in enumerate(value)}
        for dotted, item in items.items():
            if key == "pretrained" or not is_component(item):
                _refuse_harm(key, item, dotted)


def _refuse_fetching(cls: type, cfg: dict, where: str) -> None:
    """Where the folder is missing, paddleseg's datasets fetch an archive and unpack it wherever its names lead."""
    if not _is_of_paddleseg(cls) or "dataset_root" not in inspect.signature(cls).parameters:
        return
    root = cfg.get("dataset_root")
    if not isinstance(root, str) or not os.path.isdir(root):
        raise ConfigError(
            f"{where}.dataset_root: {reprlib.repr(root)} is no folder; put the data of {cfg['type']} there first"
        )


def build(cfg: dict, kind: str, where: str | None = None):
    """Builds the component that `cfg` describes, nested components first.

    Args:
        cfg: `{"type": name, argument: value, ...}`; it is not changed.
        kind: `model`, `backbone`, `dataset`, `transform`, `loss` or `optimizer`.
        where: dotted key shown in errors; by default the kind.

    Raises:
        ConfigError: unknown name, arguments that do harm in paddleseg, or the constructor refused its arguments.
    """
    where = where or kind
    if not is_component(cfg):
        raise ConfigError(f"{where}: expected a mapping with a `type` key, got {cfg!r}")
    cls = find(cfg["type"], kind, where)
    refuse_harmful(cfg, kind, where)
    if kind == "dataset":
        _refuse_fetching(cls, cfg, where)

    def value_of(key, value):
        if is_component(value):
            return build(value, kind_of(key, kind), f"{where}.{key}")
        if isinstance(value, list):
            return [
                build(item, kind_of(key, kind), f"{where}.{key}.{i}") if is_component(item) else item
                for i, item in enumerate(value)
            ]
        return value

    arguments = {key: value_of(key, value) for key, value in cfg.items() if key != "type"}
    try:
        return cls(**arguments)
    except PaddleDnlError:
        raise
    except Exception as error:
        raise ConfigError(f"{where}: {cfg['type']} could not be built: {type(error).__name__}: {error}") from error
