# SPDX-License-Identifier: Apache-2.0
"""Optimizers by name: Paddle's, two with a rate per layer, and those that a user registers.

Each is a recipe with PaddleSeg's protocol: built from the arguments in the configuration, then called with the model and the
schedule. So a user's class registered for PaddleSeg works here, and ours work in PaddleSeg.
"""

import inspect

from paddle_dnl import registry
from paddle_dnl.errors import ConfigError
from paddle_dnl.optim.groups import check_rules, number, parameter_groups, split_groups

import paddle

_CLIPS = ("ClipGradByValue", "ClipGradByNorm", "ClipGradByGlobalNorm")
# Arguments that the recipe supplies, or functions, which YAML cannot express.
_NOT_IN_YAML = (
    "learning_rate", "parameters", "grad_clip", "name", "apply_decay_param_fun", "lr_ratio", "exclude_from_weight_decay_fn",
)  # fmt: skip


def _clip(cfg):
    if cfg is None:
        return None
    if not isinstance(cfg, dict):
        raise ConfigError(f"optimizer.grad_clip_cfg: expected a mapping with a `name`, got {cfg!r}")
    cfg = dict(cfg)
    name = cfg.pop("name", None)
    if name not in _CLIPS:
        raise ConfigError(f"optimizer.grad_clip_cfg.name: must be one of {', '.join(_CLIPS)}, got {name!r}")
    try:
        return getattr(paddle.nn, name)(**cfg)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"optimizer.grad_clip_cfg: {name} cannot be built: {error}") from error


class Recipe:
    """One optimizer of a configuration: `Recipe(**arguments)(model, schedule)` gives Paddle's optimizer.

    Args:
        weight_decay: factor of the L2 penalty (AdamW: of the decoupled decay); null: none.
        grad_clip_cfg: `{"name": a clip of paddle.nn, ...}`.
        custom_cfg: parameter groups, see `paddle_dnl.optim.groups.parameter_groups`.
        arguments: the others of the Paddle class.

    Raises:
        ConfigError: an invalid value.
    """

    paddle_class: type[paddle.optimizer.Optimizer]

    def __init__(self, grad_clip_cfg=None, custom_cfg=None, **arguments):
        self.clip = _clip(grad_clip_cfg)
        check_rules(custom_cfg)
        self.rules, self.arguments = custom_cfg, arguments
        # `momentum` first: its range is narrower than that of the other numbers.
        momentum = arguments.get("momentum", 0.9)
        if isinstance(momentum, bool) or not isinstance(momentum, int | float) or not 0 <= momentum <= 1:
            raise ConfigError(f"optimizer.momentum: must be a number from 0 to 1, got {momentum!r}")
        known = inspect.signature(self.paddle_class).parameters
        for key, value in arguments.items():
            if key not in known or key in _NOT_IN_YAML:
                raise ConfigError(f"optimizer.{key}: unknown key.{registry.nearest(key, known)}")
            if isinstance(known[key].default, float) and value is not None:
                self.arguments[key] = number(value, f"optimizer.{key}")
        decay = arguments.get("weight_decay")
        if decay is not None:
            self.arguments["weight_decay"] = number(decay, "optimizer.weight_decay")

    def groups(self, model: paddle.nn.Layer) -> list:
        """The trainable parameters, or groups of them."""
        return parameter_groups(model, self.rules, self.arguments.get("weight_decay"))

    def __call__(self, model: paddle.nn.Layer, schedule) -> paddle.optimizer.Optimizer:
        return self.paddle_class(
            learning_rate=schedule, parameters=self.groups(model), grad_clip=self.clip, **self.arguments
        )


def _recipe(paddle_class: type) -> type[Recipe]:
    """The recipe of a Paddle optimizer class, under its name and with its arguments."""
    base = _AdamW if issubclass(paddle_class, paddle.optimizer.AdamW) else Recipe
    recipe = type(paddle_class.__name__, (base,), {"paddle_class": paddle_class, "__module__": __name__})
    recipe.__signature__ = _signature(paddle_class)
    return recipe


def _signature(paddle_class: type, **more) -> inspect.Signature:
    """What may stand in the configuration, with Paddle's defaults; `more` are further arguments with theirs."""
    kind = inspect.Parameter.KEYWORD_ONLY
    parameters = [
        p.replace(kind=kind)
        for p in inspect.signature(paddle_class).parameters.values()
        if p.name not in _NOT_IN_YAML and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    added = {"grad_clip_cfg": None, "custom_cfg": None, **more}
    return inspect.Signature(parameters + [inspect.Parameter(k, kind, default=v) for k, v in added.items()])


class _AdamW(Recipe):
    """Paddle's AdamW refuses None as weight decay."""

    paddle_class = paddle.optimizer.AdamW

    def __init__(self, weight_decay=0.01, **arguments):
        super().__init__(weight_decay=0.0 if weight_decay is None else weight_decay, **arguments)


@registry.OPTIMIZERS.add_component
class AdamWDL(_AdamW):
    """AdamW whose learning rate decreases from layer to layer towards the input of a transformer, as in PaddleSeg.

    A parameter of block i (`blocks.<i>.` in its name) has the rate times `layerwise_decay ** (n_layers - i)`, one of an
    embedding (`embed` in its name) times `layerwise_decay ** (n_layers + 1)`, every other the rate itself.

    Args:
        layerwise_decay: factor from one layer to the layer below it, in (0, 1].
        n_layers: number of blocks of the transformer.
        arguments: of AdamW.
    """

    __signature__ = _signature(paddle.optimizer.AdamW, layerwise_decay=0.65, n_layers=12)

    def __init__(self, layerwise_decay=0.65, n_layers=12, **arguments):
        super().__init__(**arguments)
        self.factor, self.n_layers = number(layerwise_decay, "optimizer.layerwise_decay"), n_layers
        if not 0 < self.factor <= 1:
            raise ConfigError(f"optimizer.layerwise_decay: must be above 0 and at most 1, got {layerwise_decay!r}")

    def _decays(self, model: paddle.nn.Layer, name: str, parameter: paddle.Tensor) -> bool:
        return True

    def groups(self, model: paddle.nn.Layer) -> list:
        """Groups of one rate and decay each."""
        names = {id(p): name for name, p in model.named_parameters()}

        def of_parameter(parameter):
            name, factor = names[id(parameter)], 1.0
            if "blocks" in name:
                index = name[name.find("blocks.") :].split(".")[1]
                factor = self.factor ** (self.n_layers - int(index)) if index.isdigit() else 1.0
            elif "embed" in name:
                factor = self.factor ** (self.n_layers + 1)
            return factor, self._decays(model, name, parameter)

        return split_groups(super().groups(model), of_parameter)


@registry.OPTIMIZERS.add_component
class AdamWDL_CAE(AdamWDL):  # noqa: N801  PaddleSeg's name
    """`AdamWDL` for backbones with `get_num_layers` and `no_weight_decay`; vectors and biases have no weight decay."""

    __signature__ = _signature(paddle.optimizer.AdamW, layerwise_decay=0.65)

    def groups(self, model: paddle.nn.Layer) -> list:
        """As `AdamWDL`, with the backbone's number of layers."""
        backbone = getattr(model, "backbone", None)
        if not hasattr(backbone, "get_num_layers") or not hasattr(backbone, "no_weight_decay"):
            raise ConfigError(
                "optimizer.type: AdamWDL_CAE needs a backbone of transformer blocks such as CAE_base_patch16_224; "
                "AdamWDL with n_layers serves other models"
            )
        self.n_layers = backbone.get_num_layers()
        return super().groups(model)

    def _decays(self, model: paddle.nn.Layer, name: str, parameter: paddle.Tensor) -> bool:
        # The list has names within the backbone, and PaddleSeg compares whole ones; the published recipe was trained so.
        return not (len(parameter.shape) == 1 or name.endswith(".bias") or name in model.backbone.no_weight_decay())


for _name in paddle.optimizer.__all__:
    _cls = getattr(paddle.optimizer, _name)
    # LBFGS evaluates the loss several times per step, which a training loop does not do for it.
    if inspect.isclass(_cls) and issubclass(_cls, paddle.optimizer.Optimizer) and _name not in ("Optimizer", "LBFGS"):
        registry.OPTIMIZERS.add_component(_recipe(_cls))


def resolve(cfg: dict, where: str = "optimizer") -> tuple[type, dict]:
    """The recipe that an `optimizer` section names, and its arguments. Checks and building both ask here.

    SGD with `momentum` is Momentum, as in PaddleSeg. A registered subclass of Paddle's `Optimizer` gets a recipe.

    Raises:
        ConfigError: there is no such optimizer.
    """
    arguments = {key: value for key, value in cfg.items() if key != "type"}
    kind = cfg.get("type")
    if kind == "SGD" and "momentum" in arguments:
        kind = "Momentum"
    cls = registry.find(kind, "optimizer", where)
    if inspect.isclass(cls) and issubclass(cls, paddle.optimizer.Optimizer):
        cls = _recipe(cls)
    return cls, arguments


def check(cfg, where: str = "optimizer") -> None:
    """Checks an `optimizer` section by constructing its recipe, which needs no model.

    Its weight decay becomes a number, in place.

    Raises:
        ConfigError: unknown optimizer or argument, a missing one, or a value that cannot be.
    """
    registry.require_component(cfg, "optimizer", where)
    cls, arguments = resolve(cfg, where)
    # SGD with a momentum is another class.
    registry.check_arguments(cls, cfg["type"], arguments, where, others=["momentum"] if cfg["type"] == "SGD" else ())
    registry.refuse_harmful(cls, cfg, "optimizer", where)
    if arguments.get("weight_decay") is not None:
        cfg["weight_decay"] = arguments["weight_decay"] = number(arguments["weight_decay"], f"{where}.weight_decay")
    try:
        cls(**arguments)
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f"{where}: {cfg['type']} cannot be built: {error}") from error


def build_optimizer(cfg: dict, model: paddle.nn.Layer, schedule) -> paddle.optimizer.Optimizer:
    """The optimizer of a configuration on the trainable parameters of `model`.

    Args:
        cfg: `{"type": "SGD" | "Momentum" | "Adam" | "AdamW" | ..., ...}`, see `resolve`.
        model: see `paddle_dnl.optim.groups.parameter_groups`.
        schedule: a learning-rate schedule or a number.

    Raises:
        ConfigError: unknown optimizer or argument.
    """
    cls, arguments = resolve(cfg)
    try:
        return cls(**arguments)(model, schedule)
    except ConfigError:
        raise
    except (TypeError, ValueError, AssertionError, AttributeError) as error:
        raise ConfigError(f"optimizer: {cfg['type']} cannot be built: {error}") from error
