# SPDX-License-Identifier: Apache-2.0
"""A model from the `model` section of a configuration."""

from paddle_dnl import registry

import paddle


def build_section(model_cfg: dict) -> paddle.nn.Layer:
    """The model with fresh weights. Start weights are left to `paddle_dnl.models.start_weights`, so that nothing is fetched.

    Args:
        model_cfg: the section.

    Raises:
        ConfigError: unknown name or argument in it.
    """
    cfg = {key: value for key, value in model_cfg.items() if key != "pretrained"}
    if isinstance(cfg.get("backbone"), dict):
        cfg["backbone"] = {key: value for key, value in cfg["backbone"].items() if key != "pretrained"}
    return registry.build(cfg, "model")
