# SPDX-License-Identifier: Apache-2.0
"""`import paddle_dnl.paddleseg_plugin` makes this project's components available to PaddleSeg's own tools.

Names that PaddleSeg does not have are added to its registries. For other names PaddleSeg keeps its own components
unless they are replaced:

    from paddle_dnl import paddleseg_plugin
    paddleseg_plugin.replace("DNLNet", "CrossEntropyLoss")

In PaddleSeg a model loads its initial weights (`pretrained`) itself; in this package the programs load them. The
registered function therefore builds the component and then loads its weights, also from URLs.
"""

import functools

from paddle_dnl import registry
from paddle_dnl.compat import paddleseg
from paddle_dnl.errors import ConfigError


def _pairs():
    """Returns the registry of this package and that of PaddleSeg for each kind."""
    registry.load_components()
    return [(ours, paddleseg.manager(kind)) for kind, ours in registry.REGISTRIES.items()]


def _for_paddleseg(component):
    """Returns what PaddleSeg calls: the component; for models and backbones a function that also loads weights."""
    if component not in (*registry.MODELS.components_dict.values(), *registry.BACKBONES.components_dict.values()):
        return component

    @functools.wraps(component)
    def with_start_weights(*args, **kwargs):
        from paddle_dnl.weights.downloads import resolve_pretrained
        from paddle_dnl.weights.loading import load_weights

        layer = component(*args, **kwargs)
        path = resolve_pretrained({"pretrained": kwargs.get("pretrained")})["pretrained"]
        if path:
            load_weights(layer, path, strict=False, what=f"{component.__name__}.pretrained")
        return layer

    return with_start_weights


def add_new() -> list[str]:
    """Adds the components that PaddleSeg does not have to its registries; returns their names."""
    added = []
    for ours, theirs in _pairs():
        # PaddleSeg searches a name in all registries, so a name must exist in only one of them.
        taken = {name for _, other in _pairs() for name in other.components_dict}
        for name, component in ours.components_dict.items():
            if name not in taken:
                theirs.components_dict[name] = _for_paddleseg(component)
                added.append(name)
    return added


def replace(*names: str) -> None:
    """Replaces PaddleSeg's components by those of the same name in this package.

    Raises:
        ConfigError: this package has no component of that name.
    """
    for name in names:
        found = [(ours, theirs) for ours, theirs in _pairs() if name in ours.components_dict]
        if not found:
            known = sorted(n for ours, _ in _pairs() for n in ours.components_dict)
            raise ConfigError(f"paddleseg_plugin.replace: paddle_dnl has no {name!r}.{registry.nearest(name, known)}")
        for ours, theirs in found:
            theirs.components_dict[name] = _for_paddleseg(ours.components_dict[name])


ADDED = add_new()
