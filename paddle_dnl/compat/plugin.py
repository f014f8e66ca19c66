# SPDX-License-Identifier: Apache-2.0
"""`import paddle_dnl.paddleseg_plugin` makes this project's components available to PaddleSeg's own tools.

Names that PaddleSeg does not have are added to its registries. Names that it has keep PaddleSeg's components until they are
asked for:

    from paddle_dnl import paddleseg_plugin
    paddleseg_plugin.replace("DNLNet", "CrossEntropyLoss")

In PaddleSeg a model reads its start weights (`pretrained`) itself, here the programs load them; so what is registered
there builds our component and then gives it its weights, URLs included.
"""

import functools

from paddle_dnl import registry
from paddle_dnl.compat import paddleseg
from paddle_dnl.errors import ConfigError


def _pairs():
    """Our registry and PaddleSeg's, for each kind."""
    registry.load_components()
    return [(ours, paddleseg.manager(kind)) for kind, ours in registry.REGISTRIES.items()]


def _for_paddleseg(component):
    """What PaddleSeg calls: the component, for models and backbones with start weights."""
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
    """Adds what PaddleSeg lacks to its registries; returns the names."""
    added = []
    for ours, theirs in _pairs():
        # PaddleSeg looks a name up in all its registries in turn, so a name may exist in one only.
        taken = {name for _, other in _pairs() for name in other.components_dict}
        for name, component in ours.components_dict.items():
            if name not in taken:
                theirs.components_dict[name] = _for_paddleseg(component)
                added.append(name)
    return added


def replace(*names: str) -> None:
    """Puts our component in the place of PaddleSeg's of the same name.

    Raises:
        ConfigError: we have no component of that name.
    """
    for name in names:
        found = [(ours, theirs) for ours, theirs in _pairs() if name in ours.components_dict]
        if not found:
            known = sorted(n for ours, _ in _pairs() for n in ours.components_dict)
            raise ConfigError(f"paddleseg_plugin.replace: there is no {name!r} here.{registry.nearest(name, known)}")
        for ours, theirs in found:
            theirs.components_dict[name] = _for_paddleseg(ours.components_dict[name])


ADDED = add_new()
