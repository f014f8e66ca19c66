# SPDX-License-Identifier: Apache-2.0
"""Builds the model of a configuration. Never downloads."""

from pathlib import Path

from paddle_dnl.config.comparison import warn_of_changes
from paddle_dnl.config.config import Config
from paddle_dnl.models.section import build_section
from paddle_dnl.weights.loading import load_weights

import paddle


def build_model(config: str | Path | dict | Config, pretrained: str | Path | None = None) -> paddle.nn.Layer:
    """The model of a configuration, with fresh weights or those of a file.

    Args:
        config: a YAML path, a name of the model zoo, a `Config`, a whole configuration as a dict, or only its `model` section.
        pretrained: .pdparams or .safetensors of the whole model. Start weights that the configuration names are for
            training (`paddle_dnl.models.start_weights`) and are not read here. If the `config.yml` beside the file differs
            from `config` in what the weights compute, a warning is logged.

    Returns:
        A layer that maps images `[B, 3, H, W]` to a list of logits `[B, K, H, W]`.

    Raises:
        ConfigError: unknown name or argument in the configuration.
        CheckpointError: `pretrained` is unreadable or belongs to another model.
    """
    whole = None
    if not (isinstance(config, dict) and "type" in config):
        whole = config if isinstance(config, Config) else Config(config)
    model = build_section(whole.model_cfg if whole else config)
    if pretrained is not None:
        load_weights(model, pretrained, what="weights")
        if whole:
            warn_of_changes(pretrained, whole)
    return model
