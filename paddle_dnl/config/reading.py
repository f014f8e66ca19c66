"""YAML files to plain dicts: safe loader, `_base_` inheritance, floats such as `4e-5`.

Rules of inheritance are PaddleSeg's: `_base_` names one file or a list, relative to the file that names it; mappings merge,
everything else replaces; a mapping with `_inherited_: False` replaces its base instead of merging.
"""

import re
from pathlib import Path

from paddle_dnl.errors import ConfigError

import yaml

BASE_KEY = "_base_"
INHERIT_KEY = "_inherited_"

# A configuration is a page of text. These bounds stop files that are something else, and alias bombs.
_MAX_BYTES = 256_000
_MAX_NODES = 100_000


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
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?[0-9]+$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+|\.inf|\.nan)$"),
    list("-+0123456789."),
)
_Loader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(loader.construct_scalar(node)))


def _count_nodes(node: yaml.Node, done: dict[int, int], open_nodes: set[int]) -> int:
    """Nodes below `node` with every alias written out; this is what an alias bomb makes huge."""
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
    total = 1 + sum(_count_nodes(child, done, open_nodes) for child in children)
    open_nodes.discard(id(node))
    done[id(node)] = total
    if total > _MAX_NODES:
        raise yaml.YAMLError(f"more than {_MAX_NODES} values")
    return total


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
        _count_nodes(node, {}, set())
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
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ConfigError(f"{path}: {path.stat().st_size} bytes is too large for a configuration")
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such configuration file") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from error
    try:
        value = parse_yaml(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not a valid configuration: {' '.join(str(error).split())}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: expected `key: value` lines, found {type(value).__name__}")
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


def read_config(path: str | Path, _open: tuple[Path, ...] = ()) -> dict:
    """A configuration file with its bases merged in, as plain dicts, lists and scalars.

    Raises:
        ConfigError: see `read_yaml_mapping`; also a base that is missing or that leads back to the file itself.
    """
    path = Path(path)
    if path.suffix not in (".yml", ".yaml"):
        raise ConfigError(f"{path}: a configuration file ends in .yml or .yaml")
    resolved = path.resolve()
    if resolved in _open:
        chain = " -> ".join(str(step) for step in (*_open, resolved))
        raise ConfigError(f"{path}: {BASE_KEY} leads in a circle: {chain}")
    config = read_yaml_mapping(path)
    bases = config.pop(BASE_KEY, [])
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise ConfigError(f"{path}: {BASE_KEY}: expected a file name or a list of them, got {bases!r}")
    for base in bases:
        base_path = path.parent / base
        if not base_path.exists():
            raise ConfigError(f"{path}: {BASE_KEY}: {base_path} does not exist")
        config = merge(config, read_config(base_path, (*_open, resolved)))
    return config if _open else strip_inherit_keys(config)
