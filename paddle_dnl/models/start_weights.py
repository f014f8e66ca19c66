# SPDX-License-Identifier: Apache-2.0
"""Start weights of a training: which a recipe requires, loading them, and advice when they fit another model."""

import functools
from pathlib import Path

from paddle_dnl.compat import construction
from paddle_dnl.config.lookup import zoo_configs
from paddle_dnl.config.reading import read_config
from paddle_dnl.errors import CheckpointError, ConfigError
from paddle_dnl.log import logger
from paddle_dnl.weights import start_weights
from paddle_dnl.weights.downloads import is_url
from paddle_dnl.weights.loading import read_params

import paddle


def without_start_weights(model_cfg: dict) -> dict:
    """A `model` section without `pretrained`, so that no constructor fetches weights."""
    cfg = {key: value for key, value in model_cfg.items() if key != "pretrained"}
    if isinstance(cfg.get("backbone"), dict):
        cfg["backbone"] = {key: value for key, value in cfg["backbone"].items() if key != "pretrained"}
    return cfg


def require_start_weights(config) -> None:
    """Refuses a training that would begin otherwise than its recipe does, before data are looked at.

    A recipe's `start_weights` names the file that it begins with. It is satisfied by `model.backbone.pretrained` (or
    `model.pretrained`) and waived by giving that key the value null: `--from_scratch` does so.

    Args:
        config: a `paddle_dnl.config.Config`.

    Raises:
        ConfigError: nothing was given; one line with the file, where it comes from, and the commands.
        CheckpointError: a local file was given that is not there.
    """
    sections = {"model": config.model_cfg, "model.backbone": config.model_cfg.get("backbone") or {}}
    given = {f"{name}.pretrained": cfg["pretrained"] for name, cfg in sections.items() if "pretrained" in cfg}
    for key, path in given.items():
        if path is not None and not is_url(path) and not Path(path).is_file():
            raise CheckpointError(f"{key} {path}: no such file")
    wanted = config.dic.get("start_weights")
    if wanted is not None and not given:
        file, stem = wanted["file"], Path(wanted["file"]).stem
        raise ConfigError(
            f"{config.path}: this recipe begins with the weights {file} ({wanted['from']}): give them with --pretrained "
            f"{file}, which converts them, or convert them once with `paddle-dnl convert --source "
            f"{wanted['source']} --part backbone --config {config.path} --input {file} --output {stem}.safetensors`; "
            "--from_scratch trains from random weights on purpose"
        )


def load_start_weights(model: paddle.nn.Layer, model_cfg: dict) -> None:
    """Loads what `model.backbone.pretrained` and `model.pretrained` name, and says what was taken and what was left.

    Args:
        model: as from `build_model`.
        model_cfg: the `model` section with local paths in place of URLs.

    Raises:
        CheckpointError: an unreadable file, or one of another model.
    """
    path, what = (model_cfg.get("backbone") or {}).get("pretrained"), "model.backbone.pretrained"
    if path and construction.insists(model.backbone):
        load = functools.partial(start_weights.load_partly, what=what)
        construction.read_into(model.backbone, path, read_params, load)
    elif path:
        try:
            start_weights.load_backbone(model.backbone, path, what)
        except start_weights.Misfit as error:
            raise CheckpointError(f"{str(error).rstrip('.')}{_nearest(model_cfg, error.backbone)}") from None
    if model_cfg.get("pretrained"):
        start_weights.load_partly(model, model_cfg["pretrained"], "model.pretrained")
    elif path is None and "pretrained" in {**model_cfg, **(model_cfg.get("backbone") or {})}:
        logger.info("training from scratch: no start weights")


def _nearest(model_cfg: dict, backbone: dict[str, str]) -> str:
    """Advice: the published configuration most like this one among those with the backbone that a file of weights is of.

    Where no configuration has that backbone, the overrides that choose it.
    """
    if not backbone:
        return ""
    overrides = " ".join(f"model.backbone.{key}={value}" for key, value in backbone.items())
    fitting = {}
    for path in zoo_configs().values():
        section = read_config(path).get("model") or {}
        other = dict(section.get("backbone") or {})
        if other.get("type", "").endswith("_vd"):
            other |= {"type": other["type"].removesuffix("_vd"), "stem": "vd"}
        if backbone.items() <= other.items():
            alike = sum(section.get(key) == value for key, value in model_cfg.items() if key != "backbone")
            fitting[path.stem] = (section.get("type") == model_cfg["type"], alike)
    if not fitting:
        return f". It fits --opts {overrides}"
    best = max(fitting, key=fitting.get)
    return f". It fits {best}" + (f", or any configuration with --opts {overrides}" if fitting[best][0] else "")
