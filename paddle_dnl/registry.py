# SPDX-License-Identifier: Apache-2.0
"""Names in a configuration -> classes: our own first, then those of an installed PaddleSeg (`paddle_dnl.compat`).

Each kind of component has a registry, filled by importing the modules of that kind when a name of it is first looked up.
PaddleSeg is imported only for a name that is not ours.
"""

import importlib
import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence

from paddle_dnl import user_code
from paddle_dnl.compat import construction, paddleseg, refusals
from paddle_dnl.errors import ConfigError, PaddleDnlError, describe, exit_of_component, nearest


class ComponentManager:
    """Classes or functions of one kind by their names, with the interface of PaddleSeg's class of this name.

    Args:
        name: the kind in plural, for `repr`.
        modules: modules whose import fills this registry.
    """

    def __init__(self, name: str, modules: Sequence[str] = ()):
        self.name = name
        self.modules = tuple(modules)
        self.components_dict: dict[str, Callable] = {}

    def __len__(self) -> int:
        return len(self.components_dict)

    def __repr__(self) -> str:
        return f"{self.name}: {', '.join(self.components_dict)}"

    def __contains__(self, name: str) -> bool:
        return name in self.components_dict

    def __getitem__(self, name: str) -> Callable:
        return self.components_dict[name]

    def add_component(self, component):
        """Registers a class or function, or a sequence of them, under its own name; usable as a decorator.

        A later component of the same name takes the place of an earlier one.

        Raises:
            TypeError: neither a class nor a function.
        """
        for one in component if isinstance(component, list | tuple) else (component,):
            if not (inspect.isclass(one) or inspect.isfunction(one)):
                raise TypeError(f"{self.name}: a class or a function can be registered, got {type(one).__name__}")
            self.components_dict[one.__name__] = one
        return component

    def load(self) -> None:
        """Imports the modules that register components here."""
        for module in self.modules:
            importlib.import_module(module)


MODELS = ComponentManager("models", ["paddle_dnl.models"])
BACKBONES = ComponentManager("backbones", ["paddle_dnl.models.backbones"])
DATASETS = ComponentManager("datasets", [f"paddle_dnl.data.{name}" for name in ("datasets", "pascal")])
TRANSFORMS = ComponentManager("transforms", ["paddle_dnl.data.transforms"])
LOSSES = ComponentManager("losses", ["paddle_dnl.losses"])
OPTIMIZERS = ComponentManager("optimizers", ["paddle_dnl.optim"])

REGISTRIES = {
    "model": MODELS,
    "backbone": BACKBONES,
    "dataset": DATASETS,
    "transform": TRANSFORMS,
    "loss": LOSSES,
    "optimizer": OPTIMIZERS,
}

# Which registry a nested `{type: ...}` belongs to, by the name of the argument that holds it.
_KIND_OF_ARGUMENT = {"backbone": "backbone", "transforms": "transform", "losses": "loss"}


def load_components() -> None:
    """Fills all registries; cheap when already done."""
    for kind in REGISTRIES:
        _load(kind)


def _load(kind: str) -> None:
    """Fills one registry: with ours, then with what installed packages offer."""
    REGISTRIES[kind].load()
    user_code.load_entry_points()


def names(kind: str) -> list[str]:
    """All component names of one kind, with those of PaddleSeg where it is installed; sorted."""
    _load(kind)
    return sorted({*REGISTRIES[kind].components_dict, *paddleseg.names(kind)})


def find(name: str, kind: str, where: str, owner=None) -> type:
    """The class registered under `name`, ours before PaddleSeg's.

    Args:
        name, kind: of the component.
        where: dotted key for errors.
        owner: class of the component that it is a part of. A model of PaddleSeg gets PaddleSeg's backbone: such models read
            attributes that ours of the same name do not have.

    Raises:
        ConfigError: no component of this kind has that name. The message holds the nearest one and, where PaddleSeg is not
            installed, how to install it.
    """
    _load(kind)
    if isinstance(name, str):
        theirs_first = kind == "backbone" and owner is not None and refusals.is_of_paddleseg(owner)
        found = paddleseg.find(name, kind) if theirs_first else None
        if found is None and name in REGISTRIES[kind]:
            found = REGISTRIES[kind][name]
        found = paddleseg.find(name, kind) if found is None else found
        if found is not None:
            return found
    hint = nearest(name, names(kind)) + paddleseg.install_hint()
    raise ConfigError(f"{where}.type: there is no {kind} named {name!r}.{hint}")


def kind_of(argument: str, parent_kind: str, name: str | None = None) -> str:
    """The kind of a nested component.

    Args:
        argument: that holds it; some names tell the kind, such as `backbone` and `common_transforms`.
        parent_kind: of what holds it; taken where the argument's name does not tell.
        name: of the component; where nothing of the parent's kind has it, the kind that has.
    """
    for ending, kind in _KIND_OF_ARGUMENT.items():
        if argument.rstrip("0123456789").endswith(ending):
            return kind
    if name is not None and not _exists(name, parent_kind):
        return next((kind for kind in REGISTRIES if _exists(name, kind)), parent_kind)
    return parent_kind


def _exists(name: str, kind: str) -> bool:
    _load(kind)
    return name in REGISTRIES[kind] or paddleseg.find(name, kind) is not None


def is_component(value) -> bool:
    """Whether a configuration value describes a component to be built."""
    return isinstance(value, dict) and "type" in value


def nested(cfg: dict, kind: str, where: str) -> Iterator[tuple[dict, str, str]]:
    """The components directly inside `cfg`, as (configuration, kind, dotted key)."""
    for key, value in cfg.items():
        if is_component(value):
            yield value, kind_of(key, kind, value["type"]), f"{where}.{key}"
        elif isinstance(value, list):
            for i, item in enumerate(value):
                if is_component(item):
                    yield item, kind_of(key, kind, item["type"]), f"{where}.{key}.{i}"


def check_arguments(cls: type, name: str, arguments: Iterable[str], where: str, supplied=(), others=()) -> None:
    """Refuses arguments that a component does not have, and a lack of those that it needs.

    Args:
        cls, name: of the component.
        arguments: that a configuration gives.
        where: dotted key for errors.
        supplied: arguments that the program gives.
        others: that are allowed beside those of the component.

    Raises:
        ConfigError: names the argument, and for an unknown one the nearest.
    """
    parameters = inspect.signature(cls).parameters
    known = [key for key, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    if not any(p.kind == p.VAR_KEYWORD for p in parameters.values()):
        for key in arguments:
            refuse_unknown(key, [*known, *others], where)
    for key in known:
        if parameters[key].default is inspect.Parameter.empty and key not in arguments and key not in supplied:
            raise ConfigError(f"{where}.{key}: missing; {name} needs it")


def refuse_unknown(key: str, known, where: str) -> None:
    """Refuses a key that is not known.

    Raises:
        ConfigError: names the dotted key, the nearest known one, and all of them.
    """
    if key not in known:
        dotted = f"{where}.{key}" if where else key
        raise ConfigError(
            f"{dotted}: unknown key.{nearest(key, known)} Known here: {', '.join(sorted(map(str, known)))}"
        )


def require_component(cfg, kind: str, where: str) -> None:
    """Refuses what is no mapping with a `type` key.

    Raises:
        ConfigError: names the dotted key and the value.
    """
    if not isinstance(cfg, dict) or not isinstance(cfg.get("type"), str):
        raise ConfigError(f"{where}: expected a mapping with a `type` key that names the {kind}, got {cfg!r}")


def refuse_harmful(cls: type, cfg: dict, kind: str, where: str) -> None:
    """Refuses arguments with which a component of PaddleSeg would run text, unpickle weights or fetch an archive.

    Nested components are left out: each is looked at when its turn comes.

    Raises:
        ConfigError: names the dotted key, the value and what may stand there.
    """
    if kind != "dataset" and refusals.is_of_paddleseg(cls):
        refusals.refuse_harmful(cfg, where)


def build(cfg: dict, kind: str, where: str | None = None, owner=None):
    """Builds the component that `cfg` describes, nested components first.

    Args:
        cfg: `{"type": name, argument: value, ...}`; it is not changed.
        kind: `model`, `backbone`, `dataset`, `transform`, `loss` or `optimizer`.
        where: dotted key shown in errors; by default the kind.
        owner: see `find`.

    Raises:
        ConfigError: unknown name, arguments that do harm in PaddleSeg, or the constructor refused its arguments.
    """
    where = where or kind
    if not is_component(cfg):
        raise ConfigError(f"{where}: expected a mapping with a `type` key, got {cfg!r}")
    cls = find(cfg["type"], kind, where, owner)
    refuse_harmful(cls, cfg, kind, where)
    if kind == "dataset":
        refusals.refuse_fetching(cls, cfg, where)

    def value_of(key, value):
        if is_component(value):
            return build(value, kind_of(key, kind, value["type"]), f"{where}.{key}", cls)
        if isinstance(value, list):
            return [
                build(item, kind_of(key, kind, item["type"]), f"{where}.{key}.{i}", cls) if is_component(item) else item
                for i, item in enumerate(value)
            ]
        return value

    arguments = {key: value_of(key, value) for key, value in cfg.items() if key != "type"}
    try:
        if kind in ("model", "backbone") and refusals.is_of_paddleseg(cls):
            return construction.construct(cls, arguments)
        return cls(**arguments)
    except PaddleDnlError:
        raise
    except (Exception, SystemExit) as error:
        if isinstance(error, SystemExit) and exit_of_component(error) is None:
            raise
        raise ConfigError(f"{where}: {cfg['type']} could not be built: {describe(error)}") from error
