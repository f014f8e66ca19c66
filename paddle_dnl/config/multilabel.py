# SPDX-License-Identifier: Apache-2.0
"""A configuration whose pixels may belong to several classes: `--use_multilabel`, or `test_config.use_multilabel: true`."""

from paddle_dnl import registry
from paddle_dnl.errors import ConfigError

_DATASET = "MultilabelDataset"
_ONE_CLASS = ("CrossEntropyLoss", "OhemCrossEntropyLoss")


def apply(config: dict, asked: bool) -> None:
    """Puts datasets of masks in the place of `Dataset` and has evaluations count them; changes nothing unless asked for.

    Args:
        config: the whole configuration.
        asked: by the flag.

    Raises:
        ConfigError: a dataset or loss that has one class per pixel; names its key.
    """
    settings = config.get("test_config") or {}
    wanted = settings.get("use_multilabel", False) if isinstance(settings, dict) else False
    if not isinstance(wanted, bool):
        raise ConfigError(f"test_config.use_multilabel: must be true or false, got {wanted!r}")
    if not (asked or wanted) or not isinstance(settings, dict):
        return
    config["test_config"] = {**settings, "use_multilabel": True}
    for section in ("train_dataset", "val_dataset"):
        cfg = config.get(section)
        if isinstance(cfg, dict) and cfg.get("type") == "Dataset":
            cfg["type"] = _DATASET
        elif isinstance(cfg, dict) and isinstance(cfg.get("type"), str):
            if not getattr(registry.find(cfg["type"], "dataset", section), "multilabel", False):
                raise ConfigError(
                    f"{section}.type: {cfg['type']} has one class per pixel; with use_multilabel it must be Dataset, whose "
                    "label pictures hold a mask per class"
                )
    loss = config.get("loss")
    types = loss.get("types") if isinstance(loss, dict) else None
    for i, item in enumerate(types if isinstance(types, list) else []):
        inner = item.get("losses") if isinstance(item, dict) else None
        for part in (item, *(inner if isinstance(inner, list) else [])):
            if isinstance(part, dict) and part.get("type") in _ONE_CLASS:
                raise ConfigError(
                    f"loss.types.{i}: {part['type']} learns one class per pixel; with use_multilabel take BCELoss, alone or "
                    "with LovaszHingeLoss in a MixedLoss"
                )
