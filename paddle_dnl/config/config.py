# SPDX-License-Identifier: Apache-2.0
"""`Config`: a whole experiment in one YAML file, resolved and checked before anything is built."""

import contextlib
import copy
import math
from pathlib import Path

from paddle_dnl import user_code
from paddle_dnl.config import checks, dataset_values, multilabel, training_keys
from paddle_dnl.config.lookup import find_config, shown
from paddle_dnl.config.overrides import apply_overrides
from paddle_dnl.config.reading import INHERIT_KEY, inherited_from, read_config, to_yaml
from paddle_dnl.config.spellings import modernise
from paddle_dnl.errors import ConfigError
from paddle_dnl.optim import optimizers


def _set_start_weights(model, path: str | None) -> None:
    """`path`, or null, as the only start weights of a `model` section; a value that is no mapping is left to the checks."""
    if not isinstance(model, dict):
        return
    has_backbone = isinstance(model.get("backbone"), dict)
    if has_backbone:
        model.pop("pretrained", None)
    if path is not None or has_backbone or "pretrained" in model:  # a model that never took any stays as it is
        (model["backbone"] if has_backbone else model)["pretrained"] = path


class Config:
    """A configuration file with its bases, the overrides of the command line, and defaults, all checked.

    Has the attributes of PaddleSeg's `Config` and `files`, the paths that were read; beyond its keys it knows
    `grad_accum_iters`, `ema_decay`, `pretrained_sha256`, `start_weights` and
    `find_unused_parameters`.

    Args:
        path: a .yml file, a name of the model zoo, or the configuration as a dict.
        learning_rate, batch_size, iters: replace the values of the file; None keeps them; zero is a value.
        opts: `key=value` strings, see `paddle_dnl.config.overrides`.
        pretrained: file of start weights, in place of the configuration's.
        from_scratch: no start weights, also where the recipe asks for some.
        custom_imports: Python files and modules to import first, see `paddle_dnl.user_code`.
        trust_config: import also what the file's `custom_imports` names.
        finetune: weights of a whole model to begin with, in place of the configuration's start weights.
        num_classes: replaces that of the model and of datasets whose number is in the file; other names of classes go.
        use_multilabel: several classes hold for one pixel, as `test_config.use_multilabel` says too.
        for_training: whether `batch_size`, `iters`, `train_dataset`, `optimizer`, `lr_scheduler` and `loss` must be there.
            Evaluation, prediction and export need none of them, and PaddleSeg has files without.

    Raises:
        ConfigError: names the file, the dotted key and the nearest valid name.
    """

    def __init__(
        self,
        path: str | Path | dict,
        learning_rate: float | None = None,
        batch_size: int | None = None,
        iters: int | None = None,
        opts: list[str] | None = None,
        pretrained: str | None = None,
        from_scratch: bool = False,
        custom_imports: list[str] | None = None,
        trust_config: bool = False,
        finetune: str | None = None,
        num_classes: int | None = None,
        use_multilabel: bool = False,
        for_training: bool = True,
    ):
        self.path = "configuration" if isinstance(path, dict) else str(find_config(path))
        self.files: list[Path] = []
        self.dic = copy.deepcopy(path) if isinstance(path, dict) else read_config(self.path, self.files)
        with self.named_in_errors():
            modernise(self.dic)
        self._batch_in_file = [self.dic.get(key, 1) for key in ("batch_size", "grad_accum_iters")]
        options = list(opts or [])
        for key, value in (
            ("lr_scheduler.learning_rate", learning_rate),
            ("batch_size", batch_size),
            ("iters", iters),
        ):
            if value is not None:
                options.insert(0, f"{key}={value}")
        apply_overrides(self.dic, options)
        with self.named_in_errors():
            user_code.import_for_config(self.dic, self.path, custom_imports or [], trust_config)
        with self.named_in_errors():
            modernise(self.dic)
        if pretrained is not None or from_scratch:
            _set_start_weights(self.dic.get("model"), pretrained)
        if finetune is not None and isinstance(self.dic.get("model"), dict):
            _set_start_weights(self.dic["model"], None)
            self.dic["model"]["pretrained"] = finetune
        if num_classes is not None:
            training_keys.set_num_classes(self.dic, num_classes)
        with self.named_in_errors():
            multilabel.apply(self.dic, use_multilabel)
        self._check(for_training)

    def _check(self, for_training: bool) -> None:
        """Checks sections, then fills in the values that they determine for each other."""
        config = self.dic
        try:
            checks.check(config, for_training)
            if "optimizer" in config:
                optimizers.check(config["optimizer"])
            num_classes = dataset_values.match_datasets(config)
            losses = (config.get("loss") or {}).get("types", [])
            training_keys.check_class_weights(config.get("class_weights"), losses, num_classes)
            training_keys.check_freeze(config.get("freeze"))
        except ConfigError as error:
            raise ConfigError(f"{self.path}: {error}{self._origin(str(error))}") from error.__cause__

    def _origin(self, error: str) -> str:
        """Names the base that an unknown key is inherited from; empty for other errors and for keys of the file itself."""
        key, separator, _ = error.partition(": unknown key")
        base = inherited_from(key, self.files) if separator else None
        if base is None:
            return ""
        section = key.rpartition(".")[0]
        advice = f"; with `{INHERIT_KEY}: False` in {section} nothing is inherited there" if section else ""
        return f". The key is inherited from {shown(base)}{advice}"

    @contextlib.contextmanager
    def named_in_errors(self):
        """Puts the file's name in front of `ConfigError`s that building its components raises.

        Raises:
            ConfigError: the same, with the file.
        """
        try:
            yield
        except ConfigError as error:
            if self.path in str(error):
                raise
            raise ConfigError(f"{self.path}: {error}") from error.__cause__

    def _section(self, key: str) -> dict:
        return copy.deepcopy(self.dic.get(key) or {})

    @property
    def batch_size(self) -> int:
        """Samples per process and step."""
        return self.dic["batch_size"]

    @property
    def batch_in_file(self) -> int:
        """Images per update of one process as the file has it, before overrides; as overridden where it has no number."""
        if all(type(value) is int and value > 0 for value in self._batch_in_file):
            return math.prod(self._batch_in_file)
        return self.batch_size * self.dic.get("grad_accum_iters", 1)

    @property
    def iters(self) -> int:
        """Optimizer steps of the whole run."""
        return self.dic["iters"]

    @property
    def to_static_training(self) -> bool:
        """Whether training runs as a static graph."""
        return self.dic.get("to_static_training", False)

    @property
    def model_cfg(self) -> dict:
        """The `model` section."""
        return self._section("model")

    @property
    def loss_cfg(self) -> dict:
        """The `loss` section; `types` has one entry per `coef`."""
        return self._section("loss")

    @property
    def lr_scheduler_cfg(self) -> dict:
        """The `lr_scheduler` section."""
        return self._section("lr_scheduler")

    @property
    def optimizer_cfg(self) -> dict:
        """The `optimizer` section."""
        return self._section("optimizer")

    @property
    def train_dataset_cfg(self) -> dict:
        """The `train_dataset` section."""
        return self._section("train_dataset")

    @property
    def val_dataset_cfg(self) -> dict:
        """The `val_dataset` section; empty when there is none."""
        return self._section("val_dataset")

    @property
    def test_config(self) -> dict:
        """Arguments of evaluation: slide, scales, flip."""
        return {key: value for key, value in self._section("test_config").items() if key != "while_training"}

    @property
    def test_config_while_training(self) -> dict:
        """Arguments of the evaluations between training steps: `test_config` with its `while_training` laid over it."""
        return self.test_config | (self._section("test_config").get("while_training") or {})

    def dump(self) -> str:
        """The resolved configuration as YAML that reads back to the same values."""
        return to_yaml(self.dic)

    __str__ = dump
