# SPDX-License-Identifier: Apache-2.0
"""Training and evaluation from Python, in a line each."""

from pathlib import Path

from paddle_dnl import registry
from paddle_dnl.config import Config
from paddle_dnl.data.check import check_dataset
from paddle_dnl.errors import UsageError
from paddle_dnl.evaluation import evaluator
from paddle_dnl.evaluation.evaluator import EvalResult
from paddle_dnl.evaluation.transform_check import require_restorable
from paddle_dnl.models.build import build_model
from paddle_dnl.training.options import TrainOptions, TrainState
from paddle_dnl.training.trainer import Trainer


def train(
    config: str | Path | dict | Config,
    *,
    iters: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    opts: list[str] | None = None,
    **options,
) -> TrainState:
    """Trains as train.py does.

    Args:
        config: a configuration's path or name, its content, or a `Config`.
        iters, batch_size, learning_rate, opts: replace values of the configuration; not with a `Config`.
        options: fields of `TrainOptions`, such as `save_dir="output/mine"`, `do_eval=True`, `resume_model="auto"`.

    Returns:
        Where it stands: `iteration`, `best_miou`, `best_iteration`, ...

    Raises:
        PaddleDnlError: as train.py, in one line.
    """
    unknown = sorted(set(options) - set(TrainOptions.__dataclass_fields__))
    if unknown:
        raise UsageError(
            f"train: unknown option {unknown[0]}; known are {', '.join(TrainOptions.__dataclass_fields__)}"
        )
    if not isinstance(config, Config):
        config = Config(config, learning_rate=learning_rate, batch_size=batch_size, iters=iters, opts=opts)
    with config.named_in_errors():
        trainer = Trainer(config, TrainOptions(**options))
    return trainer.run()


def evaluate(
    config: str | Path | dict | Config, model_path: str | Path, *, opts: list[str] | None = None, **settings
) -> EvalResult:
    """Evaluates weights on the `val_dataset` of a configuration, as val.py does.

    Args:
        config: as for `train`.
        model_path: .pdparams or .safetensors file.
        opts: replace values of the configuration.
        settings: arguments of `paddle_dnl.evaluation.evaluator.evaluate`, laid over the configuration's `test_config`.

    Raises:
        PaddleDnlError: as val.py, in one line.
    """
    config = config if isinstance(config, Config) else Config(config, opts=opts)
    if not config.val_dataset_cfg:
        raise UsageError(f"{config.path}: has no val_dataset")
    dataset = registry.build(config.val_dataset_cfg, "dataset", "val_dataset")
    check_dataset(dataset, "val_dataset")
    require_restorable(dataset)
    model = build_model(config, pretrained=str(model_path))
    return evaluator.evaluate(model, dataset, **{**config.test_config, **settings})
