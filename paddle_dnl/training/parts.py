# SPDX-License-Identifier: Apache-2.0
"""Components of a training, built from a configuration or given as objects."""

from pathlib import Path

from paddle_dnl import registry
from paddle_dnl.config.choices import NORMALIZATIONS
from paddle_dnl.config.reading import to_yaml
from paddle_dnl.config.training_keys import weighted_losses
from paddle_dnl.data.classes import classes_of
from paddle_dnl.data.statistics import class_weights
from paddle_dnl.distributed import collectives
from paddle_dnl.errors import ConfigError, UsageError
from paddle_dnl.log import logger
from paddle_dnl.losses.build import Losses, build_losses
from paddle_dnl.models.section import build_section
from paddle_dnl.optim.optimizers import build_optimizer
from paddle_dnl.optim.schedules import build_lr_scheduler
from paddle_dnl.training import freezing

import paddle

# Means and standard deviations of colours in 0..1 are below 1; with a value_range, which does not clip, a little above.
_LARGEST_STATISTIC = 3


class ConfiguredParts:
    """Builds the components of a `paddle_dnl.config.Config` on request."""

    def __init__(self, config):
        self.config = config

    def datasets(self, do_eval: bool) -> tuple:
        """The training dataset, and the validation dataset or None.

        Raises:
            ConfigError: see `check_config`; or a dataset that cannot be built.
            DataError: missing files.
        """
        config = self.config
        check_config(config)
        train_dataset = registry.build(config.train_dataset_cfg, "dataset", "train_dataset")
        if not do_eval:
            return train_dataset, None
        return train_dataset, registry.build(config.val_dataset_cfg, "dataset", "val_dataset")

    def network(self, train_dataset) -> tuple:
        """Model, losses, learning-rate schedule and optimizer.

        Args:
            train_dataset: after its check, which counts the labels.

        Raises:
            ConfigError: a component that cannot be built.
        """
        config = self.config
        model = build_section(config.model_cfg)
        freezing.freeze(model, config.dic.get("freeze"))
        losses = build_losses(with_class_weights(config.loss_cfg, config.dic.get("class_weights"), train_dataset))
        schedule = build_lr_scheduler(config.lr_scheduler_cfg, config.iters)
        return model, losses, schedule, build_optimizer(config.optimizer_cfg, model, schedule)


def check_config(config) -> None:
    """Checks values that need no data; warns of missing or differing normalisation, and of padding values that do not fit it.

    Raises:
        ConfigError: a single class, class weights of another number than the classes, or a training dataset in an
            evaluation mode.
    """
    count = config.model_cfg.get("num_classes") or config.train_dataset_cfg.get("num_classes")
    if count == 1 and not config.test_config.get("use_multilabel"):
        raise ConfigError(
            "num_classes: 1 class is always right and nothing is learned; give 2, with background as class 0"
        )
    mode = config.train_dataset_cfg.get("mode")
    if mode in ("val", "test"):
        raise ConfigError(
            f"train_dataset.mode: {mode} leaves labels as they are stored, for an evaluation; write `mode: train`"
        )
    for i, loss in enumerate(config.loss_cfg["types"]):
        _check_weights(loss, count, f"loss.types.{i}")
    normalisers = {}
    for section in filter(config.dic.get, ("train_dataset", "val_dataset")):
        steps = config.dic[section].get("transforms") or []
        places = [i for i, step in enumerate(steps) if step["type"] in NORMALIZATIONS]
        normalisers[section] = [steps[i] for i in places]
        if not places:
            logger.warning(f"{section}.transforms: no Normalize; the network gets numbers up to 255")
            continue
        for i in places:
            for key in ("mean", "std") if steps[i]["type"] == "Normalize" else ():
                if any(abs(value) > _LARGEST_STATISTIC for value in steps[i].get(key, ())):
                    logger.warning(
                        f"{section}.transforms.{i}.{key}: {steps[i][key]} looks like colours in 0..255, but Normalize divides "
                        "pictures by 255 first; divide mean and std by 255 too"
                    )
        for i, step in enumerate(steps[places[0] + 1 :], places[0] + 1):
            pads = "Pad" in step["type"] or "im_padding_value" in step
            value = step.get("im_padding_value", 127.5)
            if pads and any(abs(v) > 5 for v in (value if isinstance(value, list) else [value])):
                logger.warning(
                    f"{section}.transforms.{i}: {step['type']} pads with {value} after {steps[places[0]]['type']}, far "
                    "outside of normalised pictures; set im_padding_value: 0, or put it before"
                )
    if len({repr(found) for found in normalisers.values()}) > 1:
        logger.warning(f"train_dataset and val_dataset normalise pictures differently: {normalisers}")


def _check_weights(loss: dict, count: int | None, where: str) -> None:
    weight = loss.get("weight")
    if isinstance(weight, list) and count is not None and len(weight) != count:
        raise ConfigError(f"{where}.weight: {len(weight)} class weights for {count} classes")
    for i, inner in enumerate(loss.get("losses") or []):
        _check_weights(inner, count, f"{where}.losses.{i}")


def with_class_weights(loss_cfg: dict, wanted, dataset) -> dict:
    """Puts the class weights of the configuration into the losses that take them; returns the `loss` section, changed in place.

    Args:
        loss_cfg: the section.
        wanted: None, `auto` (`paddle_dnl.data.statistics.class_weights` of the training labels), or a number per class.
        dataset: the training dataset, after its check.

    Raises:
        ConfigError: `auto` with a dataset whose labels are not counted.
    """
    if wanted is None:
        return loss_cfg
    weights = wanted
    if wanted == "auto":
        statistics = getattr(dataset, "statistics", None)
        if statistics is None:
            raise ConfigError(
                f"class_weights: the labels of {type(dataset).__name__} are not counted here; give a list of numbers"
            )
        # With --skip_bad_samples ranks may have counted other samples.
        weights = collectives.broadcast_object(class_weights(statistics))
    names = classes_of(dataset).names
    logger.info(f"class weights: {', '.join(f'{n} {w:g}' for n, w in zip(names, weights, strict=True))}")
    for loss in weighted_losses(loss_cfg["types"]):
        loss["weight"] = list(weights)
    return loss_cfg


class _ConstantRate:
    """The schedule of an optimizer whose learning rate is a number."""

    def step(self) -> None:
        """Does nothing."""


class ObjectParts:
    """Given objects in place of a configuration, with the attributes of `Config` that a training reads.

    Args:
        model: maps `[B, C, H, W]` to a list of logits.
        train_dataset, val_dataset: yield dicts with `img` and `label`, as PaddleSeg's do; the second may be None.
        optimizer: a `paddle.optimizer.Optimizer` on the model's parameters.
        losses: `{"types": [loss, ...], "coef": [factor, ...]}` as for PaddleSeg, one loss per output of the model or one for
            all, or a `paddle_dnl.losses.Losses`.
        iters, batch_size: optimizer steps, and samples per process and step.
        test_config: settings of evaluations.

    Raises:
        UsageError: names a missing or unusable argument.
    """

    path = "train"

    def __init__(self, model, train_dataset, val_dataset, optimizer, losses, iters: int, batch_size: int, test_config):
        if not isinstance(optimizer, paddle.optimizer.Optimizer):
            raise UsageError(f"train: optimizer must be a paddle.optimizer.Optimizer, got {type(optimizer).__name__}")
        if train_dataset is None:
            raise UsageError("train: train_dataset is missing")
        for name, value in (("iters", iters), ("batch_size", batch_size)):
            if type(value) is not int or value < 1:
                raise UsageError(f"train: {name} must be a positive integer, got {value!r}")
        if isinstance(optimizer._learning_rate, paddle.optimizer.lr.ReduceOnPlateau):
            raise UsageError("train: ReduceOnPlateau needs a loss at each step; give the optimizer another schedule")
        self._model, self._datasets, self._optimizer = model, (train_dataset, val_dataset), optimizer
        self._losses = losses if isinstance(losses, Losses) else _losses(losses)
        self.iters, self.batch_size = iters, batch_size
        self.test_config = self.test_config_while_training = dict(test_config or {})
        self.files: list[Path] = []
        self.model_cfg: dict = {}
        # The class names of the objects; stored in checkpoints in place of a configuration.
        found = {"iters": self.iters, "batch_size": self.batch_size, "model": {"type": type(self._model).__name__}}
        for section, dataset in zip(("train_dataset", "val_dataset"), self._datasets, strict=True):
            if dataset is not None:
                found[section] = {"type": type(dataset).__name__, "num_classes": getattr(dataset, "num_classes", None)}
        found["optimizer"] = {"type": type(self._optimizer).__name__}
        names = [{"type": type(loss).__name__} for loss in self._losses.losses]
        self.dic = found | {"loss": {"types": names, "coef": list(self._losses.coef)}, "test_config": self.test_config}

    def dump(self) -> str:
        """The description as YAML."""
        return to_yaml(self.dic)

    def datasets(self, do_eval: bool) -> tuple:
        """The given datasets; the second only with `do_eval`."""
        return self._datasets[0], self._datasets[1] if do_eval else None

    def network(self, train_dataset) -> tuple:
        """Model, losses, learning-rate schedule and optimizer."""
        rate = self._optimizer._learning_rate
        schedule = rate if isinstance(rate, paddle.optimizer.lr.LRScheduler) else _ConstantRate()
        return self._model, self._losses, schedule, self._optimizer


def _losses(given) -> Losses:
    types, coef = (given.get("types"), given.get("coef")) if isinstance(given, dict) else (None, None)
    if not types or not coef or not all(map(callable, types)):
        raise UsageError(
            "train: losses must be {'types': [loss, ...], 'coef': [factor, ...]} with one entry per output of the model; "
            f"got {given!r}"
        )
    if len(types) == 1:
        types = list(types) * len(coef)
    if len(types) != len(coef):
        raise UsageError(f"train: losses has {len(types)} types for {len(coef)} coef; give one, or one per coef")
    return Losses(list(types), list(coef))
