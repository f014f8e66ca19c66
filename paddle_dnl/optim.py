"""Learning-rate schedules and optimizers from a configuration, with PaddleSeg's names and parameter groups."""

import inspect
import math
import re

from paddle_dnl.errors import ConfigError
from paddle_dnl.log import logger
from paddle_dnl.registry import OPTIMIZERS, nearest

import paddle
from paddle.optimizer.lr import LinearWarmup, LRScheduler

_CLIPS = ("ClipGradByValue", "ClipGradByNorm", "ClipGradByGlobalNorm")
_GROUP_KEYS = ("name", "pattern", "lr_mult", "weight_decay_mult")


def build_lr_scheduler(cfg: dict, iters: int) -> LRScheduler:
    """The schedule over `iters` optimizer steps.

    Args:
        cfg: `{"type": a class of paddle.optimizer.lr, ...}`; PolynomialDecay ends with the training unless
            `decay_steps` is given; `warmup_iters` and `warmup_start_lr` put a linear warm-up before it.
        iters: length of the training.

    Raises:
        ConfigError: unknown schedule or arguments that it refuses.
    """
    cfg = dict(cfg)
    kind = cfg.pop("type", None)
    warmup_iters = cfg.pop("warmup_iters", None)
    warmup_start = cfg.pop("warmup_start_lr", None)
    cls = getattr(paddle.optimizer.lr, kind, None)
    if not (inspect.isclass(cls) and issubclass(cls, LRScheduler)):
        raise ConfigError(f"lr_scheduler.type: no schedule {kind!r}.{nearest(str(kind), dir(paddle.optimizer.lr))}")
    if kind == "ReduceOnPlateau":
        raise ConfigError("lr_scheduler.type: ReduceOnPlateau needs a loss at each step; choose a schedule of the step")
    if kind == "PolynomialDecay":
        cfg.setdefault("decay_steps", max(1, iters - (warmup_iters or 0)))
    try:
        schedule = cls(**cfg)
        if warmup_iters:
            # PaddleSeg warms up to `learning_rate` and so fails on schedules without one; their first rate serves.
            end = cfg.get("learning_rate", schedule.get_lr())
            return LinearWarmup(schedule, warmup_iters, warmup_start or 0.0, end)
        return schedule
    except (TypeError, ValueError, AssertionError, NotImplementedError) as error:
        raise ConfigError(f"lr_scheduler: {kind} cannot be built: {error}") from error


def _clip(cfg: dict | None):
    if cfg is None:
        return None
    cfg = dict(cfg)
    name = cfg.pop("name", None)
    if name not in _CLIPS:
        raise ConfigError(f"optimizer.grad_clip_cfg.name: must be one of {', '.join(_CLIPS)}, got {name!r}")
    try:
        return getattr(paddle.nn, name)(**cfg)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"optimizer.grad_clip_cfg: {name} cannot be built: {error}") from error


def _group_matches(rule: dict, name: str) -> bool:
    return bool(re.search(rule["pattern"], name)) if "pattern" in rule else rule["name"] in name


def _check_rules(rules) -> None:
    if not isinstance(rules, list) or not all(isinstance(rule, dict) for rule in rules):
        raise ConfigError(f"optimizer.custom_cfg: expected a list of mappings, got {rules!r}")
    for i, rule in enumerate(rules):
        where = f"optimizer.custom_cfg.{i}"
        for key in rule:
            if key not in _GROUP_KEYS:
                raise ConfigError(f"{where}.{key}: unknown key.{nearest(key, _GROUP_KEYS)}")
        if ("name" in rule) == ("pattern" in rule):
            raise ConfigError(f"{where}: give either `name`, a part of parameter names, or `pattern`, a regex")
        try:
            re.compile(rule.get("pattern", ""))
        except re.error as error:
            raise ConfigError(f"{where}.pattern: {rule['pattern']!r} is not a regular expression ({error})") from error
        for key in ("lr_mult", "weight_decay_mult"):
            if rule.get(key) is not None:
                _number(rule[key], f"{where}.{key}")


def _number(value, where: str) -> float:
    """`value` as a float; YAML reads 4e-5, without a point, as text, which is accepted.

    Raises:
        ConfigError: not a number from 0.
    """
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not (math.isfinite(number) and number >= 0):
        raise ConfigError(f"{where}: must be a number from 0, got {value!r}")
    return number


def parameter_groups(model: paddle.nn.Layer, rules: list[dict] | None, weight_decay: float | None) -> list:
    """The trainable parameters, in groups when there are rules.

    Args:
        model: its parameters' structured names decide; the first rule that fits takes a parameter.
        rules: `custom_cfg`: mappings with `name` (substring) or `pattern` (regex), `lr_mult`, `weight_decay_mult`.
        weight_decay: what `weight_decay_mult` multiplies.

    Raises:
        ConfigError: a malformed rule, or one that fits no parameter.
    """
    named = [(name, p) for name, p in model.named_parameters() if not p.stop_gradient]
    if not rules:
        return [p for _, p in named]
    _check_rules(rules)
    members: list[list] = [[] for _ in rules]
    rest = []
    for name, parameter in named:
        index = next((i for i, rule in enumerate(rules) if _group_matches(rule, name)), None)
        (rest if index is None else members[index]).append(parameter)
    groups = []
    for i, (rule, parameters) in enumerate(zip(rules, members, strict=True)):
        wanted = rule.get("name", rule.get("pattern"))
        if not parameters:
            taken = any(_group_matches(rule, name) for name, _ in named)
            why = "earlier entries take every parameter that fits" if taken else "no parameter of the model fits"
            raise ConfigError(f"optimizer.custom_cfg.{i}: {why} {wanted!r}")
        rate = rule.get("lr_mult")
        group = {"params": parameters, "learning_rate": 1.0 if rate is None else float(rate)}
        if weight_decay is not None and rule.get("weight_decay_mult") is not None:
            group["weight_decay"] = weight_decay * float(rule["weight_decay_mult"])
        groups.append(group)
        logger.info(f"parameter group {wanted!r}: {len(parameters)} parameters")
    return groups + ([{"params": rest}] if rest else [])


def _make(cls: type, model, learning_rate, weight_decay, grad_clip_cfg, custom_cfg, **arguments):
    """`cls` of Paddle on the parameter groups of `model`."""
    clip = _clip(grad_clip_cfg)
    if weight_decay is not None:
        weight_decay = _number(weight_decay, "optimizer.weight_decay")
    groups = parameter_groups(model, custom_cfg, weight_decay)
    return cls(learning_rate=learning_rate, parameters=groups, weight_decay=weight_decay, grad_clip=clip, **arguments)


# Below, PaddleSeg's optimizers with its arguments and defaults. Common arguments:
#   model, learning_rate: a layer, whose trainable parameters are updated, and a schedule or a number
#   weight_decay: L2 penalty added to the gradient; with AdamW decoupled from it
#   grad_clip_cfg: `{name: ClipGradByNorm, ...}`
#   custom_cfg: see `parameter_groups`


@OPTIMIZERS.add_component
def SGD(model, learning_rate, /, weight_decay=None, grad_clip_cfg=None, custom_cfg=None):
    """Gradient descent without momentum."""
    return _make(paddle.optimizer.SGD, model, learning_rate, weight_decay, grad_clip_cfg, custom_cfg)


@OPTIMIZERS.add_component
def Momentum(
    model, learning_rate, /, momentum=0.9, use_nesterov=False, weight_decay=None, grad_clip_cfg=None, custom_cfg=None
):
    """Gradient descent with momentum."""
    own = {"momentum": momentum, "use_nesterov": use_nesterov}
    return _make(paddle.optimizer.Momentum, model, learning_rate, weight_decay, grad_clip_cfg, custom_cfg, **own)


@OPTIMIZERS.add_component
def Adam(
    model,
    learning_rate,
    /,
    beta1=0.9,
    beta2=0.999,
    epsilon=1e-8,
    lazy_mode=False,
    weight_decay=None,
    grad_clip_cfg=None,
    custom_cfg=None,
):
    """Adam."""
    own = {"beta1": beta1, "beta2": beta2, "epsilon": epsilon, "lazy_mode": lazy_mode}
    return _make(paddle.optimizer.Adam, model, learning_rate, weight_decay, grad_clip_cfg, custom_cfg, **own)


@OPTIMIZERS.add_component
def AdamW(
    model,
    learning_rate,
    /,
    beta1=0.9,
    beta2=0.999,
    epsilon=1e-8,
    weight_decay=0.01,
    lazy_mode=False,
    grad_clip_cfg=None,
    custom_cfg=None,
):
    """Adam with decoupled weight decay."""
    own = {"beta1": beta1, "beta2": beta2, "epsilon": epsilon, "lazy_mode": lazy_mode}
    decay = 0.0 if weight_decay is None else weight_decay  # Paddle's AdamW refuses None
    return _make(paddle.optimizer.AdamW, model, learning_rate, decay, grad_clip_cfg, custom_cfg, **own)


# PaddleSeg accepts these for compatibility with its own past.
_OLD_NAMES = {"adam": "Adam", "sgd": "SGD"}


def current_name(cfg: dict):
    """The optimizer that a configuration means: old names are translated, SGD with `momentum` is Momentum."""
    kind = cfg.get("type")
    kind = _OLD_NAMES.get(kind, kind) if isinstance(kind, str) else kind
    return "Momentum" if kind == "SGD" and "momentum" in cfg else kind


def build_optimizer(cfg: dict, model: paddle.nn.Layer, schedule) -> paddle.optimizer.Optimizer:
    """The optimizer of a configuration on the trainable parameters of `model`.

    Args:
        cfg: `{"type": "SGD" | "Momentum" | "Adam" | "AdamW", ...}`.
        model: see `parameter_groups`.
        schedule: a learning-rate schedule or a number.

    Raises:
        ConfigError: unknown optimizer or argument.
    """
    kind = current_name(cfg)
    if not isinstance(kind, str) or kind not in OPTIMIZERS:
        raise ConfigError(
            f"optimizer.type: no optimizer {kind!r} here.{nearest(str(kind), OPTIMIZERS.components_dict)}"
        )
    arguments = {key: value for key, value in cfg.items() if key != "type"}
    try:
        return OPTIMIZERS[kind](model, schedule, **arguments)
    except (TypeError, ValueError, AssertionError) as error:
        raise ConfigError(f"optimizer: {kind} cannot be built: {error}") from error
