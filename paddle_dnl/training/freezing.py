# SPDX-License-Identifier: Apache-2.0
"""`freeze`: layers that neither learn nor change their batch statistics, and stay in evaluation mode (no dropout)."""

from paddle_dnl.errors import ConfigError, nearest
from paddle_dnl.log import logger

from paddle import nn


def freeze(model: nn.Layer, what) -> None:
    """Freezes layers; to be called before the optimizer is built, which leaves their parameters out.

    Args:
        model: a segmentor.
        what: None, `backbone`, `{"stages": N}`: the stem and the first N stages of our ResNet and DGMN2, or names of layers.

    Raises:
        ConfigError: the model has no such layers, or nothing would be left to train.
    """
    if what is None:
        return
    named = _chosen(model, what)
    layers = {}
    for layer in named.values():
        for part in layer.sublayers(include_self=True):
            layers[id(part)] = part
        for parameter in layer.parameters():
            parameter.stop_gradient = True
            parameter.trainable = False
    frozen = list(layers.values())
    for layer in frozen:
        if isinstance(layer, nn.layer.norm._BatchNormBase):
            layer._use_global_stats = True

    def keep(*_):
        for layer in frozen:
            layer.training = False

    # `model.train()` puts every layer into training mode; frozen ones return to evaluation mode before each pass.
    model.register_forward_pre_hook(keep)
    count = sum(p.size for p in model.parameters() if p.stop_gradient)
    total = sum(p.size for p in model.parameters())
    if count == total:
        raise ConfigError(f"freeze: {what!r} leaves nothing to train")
    logger.info(f"frozen: {', '.join(named)}: {count} of {total} parameters, and their batch statistics")


def _chosen(model: nn.Layer, what) -> dict[str, nn.Layer]:
    """The layers by name."""
    layers = dict(model.named_sublayers())
    if isinstance(what, list):
        for name in what:
            if name not in layers:
                raise ConfigError(f"freeze: the model has no layer {name!r}.{nearest(name, layers)}")
        return {name: layers[name] for name in what}
    backbone = layers.get("backbone")
    if backbone is None:
        raise ConfigError(f"freeze: {type(model).__name__} has no backbone; give a list of names of layers")
    if what == "backbone":
        return {"backbone": backbone}
    if not hasattr(backbone, "stage_names"):
        raise ConfigError(
            f"freeze.stages: the stages of {type(backbone).__name__} are not known; give `backbone` or a list of names"
        )
    names = [f"backbone.{name}" for stage in backbone.stage_names()[: what["stages"] + 1] for name in stage]
    return {name: layers[name] for name in names}
