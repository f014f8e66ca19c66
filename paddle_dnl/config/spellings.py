# SPDX-License-Identifier: Apache-2.0
"""Old keys and values of PaddleSeg's configurations, rewritten to those of its newest release.

Runs before all checks, so that the rest of the package needs to know the newest spelling only.
PaddleSeg up to 2.7 reads `optimizer.type: sgd` as Momentum with 0.9 and gives PolynomialDecay its own defaults (`end_lr` 0,
`power` 0.9); from 2.8 on, `SGD` is plain and the defaults are Paddle's. A file with the lower-case name is of the older kind.
"""

from paddle_dnl.errors import ConfigError
from paddle_dnl.log import logger

_OLD_OPTIMIZERS = {"sgd": "Momentum", "adam": "Adam"}
_OLD_SCHEDULES = {"poly": "PolynomialDecay", "piecewise": "PiecewiseDecay", "stepdecay": "StepDecay"}
# Keys in PaddleSeg's own files that its programs never read, or that only PaddleX reads.
_IGNORED_KEYS = {
    "mean": "a place for an anchor",
    "std": "a place for an anchor",
    "weight": "a place for an anchor",
    "uniform_output_enabled": "a switch of PaddleX; export.py writes the inference model",
    "pdx_model_name": "a name for PaddleX",
    "distill_loss": "read by PaddleSeg's distillation alone",
    "hpi_config_path": "settings of PaddleX's inference",
}


def modernise(config: dict) -> None:
    """Rewrites old spellings in place; called again, it changes nothing more.

    Raises:
        ConfigError: an old `learning_rate` section of another form than PaddleSeg's.
    """
    # Keys that PaddleSeg's files have by mistake; the checks refuse other unknown keys.
    for key, reason in _IGNORED_KEYS.items():
        if key in config:
            del config[key]
            logger.warning(f"{key}: ignored ({reason})")
    for section in ("train_dataset", "val_dataset"):
        dataset = config.get(section)
        if isinstance(dataset, dict) and "shuffle" in dataset:
            del dataset["shuffle"]
            logger.warning(f"{section}.shuffle: ignored; pictures of the training are always shuffled, others never")
    optimizer = config.get("optimizer")
    rules = optimizer.get("custom_cfg") if isinstance(optimizer, dict) else None
    for i, rule in enumerate(rules if isinstance(rules, list) else []):
        if isinstance(rule, dict) and "lr_multi" in rule and "lr_mult" not in rule:
            del rule["lr_multi"]
            logger.warning(f"optimizer.custom_cfg.{i}.lr_multi: ignored, as PaddleSeg does; the key is lr_mult")
    is_old = isinstance(optimizer, dict) and optimizer.get("type") in _OLD_OPTIMIZERS
    _schedule(config)
    if not is_old:
        return
    _optimizer(optimizer)
    schedule = config.get("lr_scheduler")
    if isinstance(schedule, dict) and schedule.get("type") == "PolynomialDecay":
        schedule.setdefault("end_lr", 0)
        schedule.setdefault("power", 0.9)


def _optimizer(cfg: dict) -> None:
    old = cfg["type"]
    cfg["type"] = _OLD_OPTIMIZERS[old]
    if old == "sgd" and "momentum" not in cfg:
        cfg["momentum"] = 0.9
        logger.warning("optimizer.type: sgd is Momentum with 0.9, as in PaddleSeg up to 2.7; SGD is plain")
    if "backbone_lr_mult" in cfg:  # PaddleSeg 2.7
        rules = cfg.get("custom_cfg") or []
        cfg["custom_cfg"] = [*rules, {"pattern": r"^backbone\.", "lr_mult": cfg.pop("backbone_lr_mult")}]


def _schedule(config: dict) -> None:
    """`learning_rate: {value, decay}` of PaddleSeg 2.0, which 2.5 to 2.7 still read; beside `lr_scheduler` they ignore it."""
    if "learning_rate" not in config:
        return
    old = config.pop("learning_rate")
    if "lr_scheduler" in config:
        logger.warning("learning_rate: ignored beside lr_scheduler, as PaddleSeg does; remove it")
        return
    if isinstance(old, int | float) and not isinstance(old, bool):
        config["lr_scheduler"] = {"type": "PiecewiseDecay", "boundaries": [1], "values": [old, old]}
        return
    decay = old.get("decay", {"type": "poly", "power": 0.9}) if isinstance(old, dict) else None
    if not isinstance(decay, dict) or decay.get("type") not in _OLD_SCHEDULES or set(old) - {"value", "decay"}:
        raise ConfigError(
            f"learning_rate: expected `value` and `decay` of type poly, piecewise or stepdecay, got {old!r}"
        )
    decay = dict(decay)
    kind = _OLD_SCHEDULES[decay.pop("type")]
    rate = {"values" if kind == "PiecewiseDecay" else "learning_rate": old.get("value")}
    if kind == "PolynomialDecay":
        decay = {"end_lr": 0, "power": 1.0, **decay}
    config["lr_scheduler"] = {"type": kind, **rate, **decay}
