"""From a configuration to a model, and start weights into it. Nothing here uses the network."""

import functools
from pathlib import Path

from paddle_dnl import registry
from paddle_dnl.compat import construction
from paddle_dnl.config import Config
from paddle_dnl.weights.loading import load_weights, read_params

import paddle


def _model_section(config) -> dict:
    if isinstance(config, Config):
        return config.model_cfg
    if isinstance(config, dict) and "type" in config:
        return config
    return Config(config).model_cfg


def _without_pretrained(cfg: dict) -> dict:
    """The section with start weights taken out, so that no constructor fetches them."""
    cfg = {key: value for key, value in cfg.items() if key != "pretrained"}
    if isinstance(cfg.get("backbone"), dict):
        cfg["backbone"] = {key: value for key, value in cfg["backbone"].items() if key != "pretrained"}
    return cfg


def build_model(config: str | Path | dict | Config, pretrained: str | Path | None = None) -> paddle.nn.Layer:
    """The model of a configuration, with fresh weights or those of a file.

    Args:
        config: a YAML path, a name of the model zoo, a `Config`, a whole configuration as a dict, or only its `model` section.
        pretrained: .pdparams or .safetensors of the whole model. Start weights that the configuration names are for
            training (`load_start_weights`) and are not read here.

    Returns:
        A layer that maps images `[B, 3, H, W]` to a list of logits `[B, K, H, W]`.

    Raises:
        ConfigError: unknown name or argument in the configuration.
        CheckpointError: `pretrained` is unreadable or belongs to another model.
    """
    model = registry.build(_without_pretrained(_model_section(config)), "model")
    if pretrained is not None:
        load_weights(model, pretrained, what="weights")
    return model


def load_start_weights(model: paddle.nn.Layer, model_cfg: dict) -> None:
    """Loads what `model.backbone.pretrained` and `model.pretrained` name, as far as shapes fit, and warns of the rest.

    Args:
        model: as from `build_model`.
        model_cfg: the `model` section with local paths in place of URLs.

    Raises:
        CheckpointError: an unreadable file, or one of which no key fits.
    """
    path = (model_cfg.get("backbone") or {}).get("pretrained")
    what = "model.backbone.pretrained"
    if path and construction.insists(model.backbone):
        construction.read_into(model.backbone, path, read_params, functools.partial(_load_fitting, what))
    elif path:
        _load_fitting(what, model.backbone, path)
    if model_cfg.get("pretrained"):
        _load_fitting("model.pretrained", model, model_cfg["pretrained"])


def _load_fitting(what: str, layer: paddle.nn.Layer, path: str) -> None:
    load_weights(layer, path, strict=False, what=what)
