# SPDX-License-Identifier: Apache-2.0
"""YAML files to plain dicts: safe loader, `_base_` inheritance, floats such as `4e-5`.

Rules of inheritance are PaddleSeg's: `_base_` names one file or a list, relative to the file that names it; mappings merge,
everything else replaces; a mapping with `_inherited_: False` replaces its base instead of merging. A base without a folder
that is not beside the file may be a name of the model zoo.
"""

import re
import reprlib
from pathlib import Path

from paddle_dnl import user_code
from paddle_dnl.config.lookup import SUFFIXES, find_config, shown, zoo_configs
from paddle_dnl.errors import ConfigError
from paddle_dnl.files.reading import open_file
from paddle_dnl.log import logger

import yaml

BASE_KEY = "_base_"
INHERIT_KEY = "_inherited_"

# Bounds against files that are no configurations, and against bombs of aliases and bases.
_MAX_BYTES = 256_000
_MAX_NODES = 100_000
_MAX_LEVELS = 100
_MAX_FILES = 64
_MAX_BASES_IN_A_ROW = 16


_MISSING = object()


class _Loader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2's numbers: `4e-5` is a float, `1:30` and dates are strings; duplicate keys are refused."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":int", ":float", ":timestamp"))]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str | int):
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is not a name", key_node.start_mark)
            if key in seen:
                # A key may be repeated with the same value, as in some files of PaddleSeg; of different values one
                # would be lost
                values = [self.construct_object(v, deep=True) for k, v in node.value if self.construct_object(k) == key]
                if any(value != values[0] for value in values):
                    raise yaml.constructor.ConstructorError(
                        None, None, f"key {key!r} is given twice", key_node.start_mark
                    )
                line = key_node.start_mark.line + 1
                logger.warning(f"line {line}: key {key!r} is given twice with the same value; remove one")
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?[0-9]+$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+|\.inf|\.nan)$"),
    list("-+0123456789."),
)
_Loader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(loader.construct_scalar(node)))


def _measure(node: yaml.Node, done: dict[int, tuple[int, int]], open_nodes: set[int]) -> tuple[int, int]:
    """Nodes and levels from `node` on with every alias written out; this is what an alias bomb makes huge."""
    if id(node) in done:
        return done[id(node)]
    if id(node) in open_nodes:
        raise yaml.YAMLError("an alias refers to the node that holds it")
    open_nodes.add(id(node))
    children = []
    if isinstance(node, yaml.SequenceNode):
        children = node.value
    elif isinstance(node, yaml.MappingNode):
        children = [part for pair in node.value for part in pair]
    sizes = [_measure(child, done, open_nodes) for child in children]
    total = 1 + sum(nodes for nodes, _ in sizes)
    levels = 1 + max((deep for _, deep in sizes), default=0)
    open_nodes.discard(id(node))
    done[id(node)] = total, levels
    if total > _MAX_NODES:
        raise yaml.YAMLError(f"more than {_MAX_NODES} values")
    if levels > _MAX_LEVELS:
        raise yaml.YAMLError(f"nested too deeply, more than {_MAX_LEVELS} levels")
    return total, levels


def parse_yaml(text: str):
    """One YAML document to plain values.

    Raises:
        yaml.YAMLError: not YAML, tags other than plain data, duplicate keys, or aliases out of bounds.
    """
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _measure(node, {}, set())
        return loader.construct_document(node)
    except RecursionError as error:
        raise yaml.YAMLError("nested too deeply") from error
    except (ValueError, TypeError) as error:
        raise yaml.YAMLError(str(error)) from error
    finally:
        loader.dispose()


def read_yaml_mapping(path: Path) -> dict:
    """One YAML file that holds a mapping.

    Raises:
        ConfigError: missing, unreadable, too large, not UTF-8, not YAML, or not a mapping; names the file and line.
    """
    name = shown(path)
    try:
        with open_file(path) as file:
            # Not by the size that the system states: files of /proc have none.
            content = file.read(_MAX_BYTES + 1)
        if len(content) > _MAX_BYTES:
            raise ConfigError(f"{name}: more than {_MAX_BYTES} bytes is too large for a configuration")
        value = parse_yaml(content.decode("utf-8-sig"))
    except FileNotFoundError:
        raise ConfigError(f"{name}: no such configuration file") from None
    except OSError as error:
        raise ConfigError(f"{name}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{name}: not UTF-8 text ({error.reason} at byte {error.start})") from error
    except ValueError as error:  # a zero byte in the name
        raise ConfigError(f"{name}: cannot be read ({error})") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{name}: not a valid configuration: {' '.join(str(error).split())}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{name}: expected `key: value` lines, found {type(value).__name__}")
    return value


def merge(child: dict, base: dict) -> dict:
    """`child` laid over `base`; mappings merge, other values replace."""
    if not child.get(INHERIT_KEY, True):
        return strip_inherit_keys(child)
    merged = dict(base)
    for key, value in child.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            merged[key] = merge(value, base[key])
        else:
            merged[key] = value
    return merged


def strip_inherit_keys(value):
    """`value` without any `_inherited_` key in it."""
    if isinstance(value, dict):
        return {key: strip_inherit_keys(item) for key, item in value.items() if key != INHERIT_KEY}
    if isinstance(value, list):
        return [strip_inherit_keys(item) for item in value]
    return value


def read_config(path: str | Path, files: list[Path] | None = None) -> dict:
    """A configuration with its bases merged in, as plain dicts, lists and scalars.

    Args:
        path: of the file, or a name of the model zoo, see `paddle_dnl.config.lookup.find_config`.
        files: gets the paths of all files that are read.

    Raises:
        ConfigError: see `read_yaml_mapping`; also a base that is missing or leads back to the file itself, and too many.
    """
    return strip_inherit_keys(_read_with_bases(find_config(path), (), [] if files is None else files))


def _read_with_bases(path: Path, children: tuple[Path, ...], done: list[Path]) -> dict:
    """`read_config` of a base of `children`, the first of which the user named; `done` were read before."""
    name = shown(path)
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"{name}: a configuration file ends in .yml or .yaml")
    config = read_yaml_mapping(path)
    here = path.resolve()
    if here in children:
        chain = " -> ".join(shown(step) for step in (*children, here))
        raise ConfigError(f"{name}: {BASE_KEY} leads in a circle: {chain}")
    done.append(here)
    first = shown((*children, here)[0])
    if len(children) >= _MAX_BASES_IN_A_ROW:
        raise ConfigError(
            f"{first}: {BASE_KEY} leads over more than {_MAX_BASES_IN_A_ROW} files to {name}; write fewer"
        )
    if len(done) > _MAX_FILES:
        raise ConfigError(f"{first}: {BASE_KEY} has more than {_MAX_FILES} files read, up to {name}; write fewer")
    if user_code.KEY in config:
        config[user_code.KEY] = user_code.absolute_files(config[user_code.KEY], path.parent)
    bases = config.pop(BASE_KEY, [])
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise ConfigError(f"{name}: {BASE_KEY}: expected a file name or a list of them, got {reprlib.repr(bases)}")
    for base in bases:
        base_path = path.parent / base
        try:
            if not base_path.exists():
                base_path = zoo_configs().get(base.removesuffix(".yml"), base_path)
            problem = "" if base_path.exists() else "does not exist"
        except OSError as error:  # such as a name that is too long
            problem = f"cannot be read ({error.strerror})"
        if problem:
            raise ConfigError(f"{name}: {BASE_KEY}: {shown(base_path)} {problem}")
        config = merge(config, _read_with_bases(base_path, (*children, here), done))
    return config


def inherited_from(key: str, files: list[Path]) -> Path | None:
    """The base that gives a dotted key to a configuration; None if its own file, or no file, has the key.

    Args:
        key: dotted key, without indices of lists.
        files: of the configuration, as from `read_config`.
    """
    for path in files:
        value = read_yaml_mapping(path)
        for part in key.split("."):
            value = value.get(part, _MISSING) if isinstance(value, dict) else _MISSING
        if value is not _MISSING:
            return None if path == files[0] else path
    return None


class _Dumper(yaml.SafeDumper):
    """Writes repeated values out instead of using anchors."""

    def ignore_aliases(self, data) -> bool:
        return True


def to_yaml(value) -> str:
    """Plain data as YAML text, keys in their order."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
