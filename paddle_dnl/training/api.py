# SPDX-License-Identifier: Apache-2.0
"""Python API: trains, evaluates and predicts from a configuration, or with given objects like `paddleseg.core`."""

import os
from collections.abc import Sequence
from pathlib import Path

from paddle_dnl import registry
from paddle_dnl.config.config import Config
from paddle_dnl.data.checking.check import check_dataset
from paddle_dnl.data.classes import bit_palette
from paddle_dnl.data.images.image_files import find_images, require_outside
from paddle_dnl.data.images.image_format import ImageFormat
from paddle_dnl.data.transforms.compose import Compose
from paddle_dnl.errors import DataError, UsageError
from paddle_dnl.evaluation import evaluator
from paddle_dnl.evaluation import predict as prediction
from paddle_dnl.evaluation.evaluator import EvalResult
from paddle_dnl.evaluation.transform_check import require_restorable
from paddle_dnl.models.build import build_model
from paddle_dnl.training.options import TrainOptions, TrainState
from paddle_dnl.training.parts import ObjectParts
from paddle_dnl.training.trainer import Trainer
from paddle_dnl.weights.loading import load_weights

import paddle

Configuration = str | Path | dict | Config
# Arguments of PaddleSeg's `train` that change nothing here: the order of samples follows from the seed.
_ACCEPTED = {"shuffle": True, "logger": None}


def train(
    model: paddle.nn.Layer | Configuration,
    train_dataset=None,
    val_dataset=None,
    optimizer: paddle.optimizer.Optimizer | None = None,
    save_dir: str | Path = "./output",
    iters: int | None = None,
    batch_size: int | None = None,
    *,
    losses: dict | None = None,
    test_config: dict | None = None,
    learning_rate: float | None = None,
    opts: list[str] | None = None,
    **options,
) -> TrainState:
    """Trains from a configuration, as train.py does, or trains a given model on given datasets.

    `train("my.yml", save_dir="output/mine", do_eval=True)` or, with the arguments of PaddleSeg's `paddleseg.core.train`,
    `train(model, train_dataset, val_dataset, optimizer, "output/mine", iters=1000, batch_size=4, losses=losses)`.

    Args:
        model: a layer that maps `[B, C, H, W]` to a list of logits; or a configuration: path, name, content or `Config`.
        train_dataset, val_dataset, optimizer, losses, test_config: see `paddle_dnl.training.parts.ObjectParts`; only with a
            layer. A `val_dataset` is evaluated at each checkpoint.
        save_dir: folder of the run.
        iters, batch_size: by default 10000 and 2 with a layer; with a configuration they override its values, as do
            `learning_rate` and `opts`, which need a configuration.
        options: further fields of `TrainOptions`, such as `save_interval=500`, `resume_model="auto"`, `use_ema=True`.

    Returns:
        The final state: `iteration`, `best_miou`, `best_iteration`, ...

    Raises:
        PaddleDnlError: the one-line error of train.py.
    """
    options = {key: value for key, value in options.items() if key not in _ACCEPTED}
    unknown = sorted(set(options) - set(TrainOptions.__dataclass_fields__))
    if unknown:
        raise UsageError(
            f"train: unknown option {unknown[0]}; known are {', '.join(TrainOptions.__dataclass_fields__)}"
        )
    options["save_dir"] = str(save_dir)
    objects = {"train_dataset": train_dataset, "val_dataset": val_dataset, "optimizer": optimizer, "losses": losses}
    if isinstance(model, paddle.nn.Layer):
        _refuse({"learning_rate": learning_rate, "opts": opts}, "a layer and its optimizer")
        options.setdefault("do_eval", val_dataset is not None)
        parts = ObjectParts(
            model, **objects, iters=iters or 10000, batch_size=batch_size or 2, test_config=test_config
        )  # fmt: skip
        return Trainer(parts, TrainOptions(**options)).run()
    _refuse({**objects, "test_config": test_config}, "a configuration")
    config = _config(model, learning_rate=learning_rate, batch_size=batch_size, iters=iters, opts=opts)
    with config.named_in_errors():
        trainer = Trainer(config, TrainOptions(**options))
    return trainer.run()


def evaluate(
    model: paddle.nn.Layer | Configuration,
    eval_dataset=None,
    *,
    model_path: str | Path | None = None,
    opts: list[str] | None = None,
    **settings,
) -> EvalResult:
    """Evaluates a model on a dataset, or the weights of a configuration on its `val_dataset`, as val.py does.

    `evaluate("my.yml", "output/best_model/model.pdparams")` or `evaluate(model, eval_dataset, aug_eval=True, scales=[0.5, 1.0])`.

    Args:
        model: a layer that maps `[B, C, H, W]` to a list of logits; or a configuration, as for `train`.
        eval_dataset: yields dicts with `img`, `label` and `trans_info`; has `num_classes` and `ignore_index`. With a
            configuration this positional argument is `model_path`.
        model_path: .pdparams or .safetensors file; optional with a layer.
        opts: override values of the configuration.
        settings: arguments of `paddle_dnl.evaluation.evaluator.evaluate`; with a configuration they override its
            `test_config`.

    Returns:
        The scores; unpacks to PaddleSeg's tuple: mIoU, accuracy, IoU and precision of each class, kappa.

    Raises:
        PaddleDnlError: the one-line error of val.py.
    """
    if isinstance(model, paddle.nn.Layer):
        if eval_dataset is None or opts is not None:
            raise UsageError("evaluate: a layer is evaluated on an eval_dataset, without opts")
        _load(model, model_path)
        return evaluator.evaluate(model, eval_dataset, **settings)
    if isinstance(eval_dataset, str | os.PathLike) and model_path is None:
        model_path, eval_dataset = eval_dataset, None
    _refuse({"eval_dataset": eval_dataset}, "a configuration")
    if model_path is None:
        raise UsageError("evaluate: model_path is missing: the .pdparams or .safetensors file of trained weights")
    config = _config(model, opts=opts)
    dataset = registry.build(_val_dataset(config), "dataset", "val_dataset")
    check_dataset(dataset, "val_dataset")
    require_restorable(dataset)
    layer = build_model(config, pretrained=str(model_path))
    return evaluator.evaluate(layer, dataset, **{**config.test_config, **settings})


def predict(
    model: paddle.nn.Layer | Configuration,
    model_path: str | Path | None = None,
    transforms=None,
    image_list: str | Path | Sequence[str | Path] | None = None,
    image_dir: str | Path | None = None,
    save_dir: str | Path = "./output/result",
    *,
    aug_pred: bool = False,
    custom_color: list[int] | None = None,
    opts: list[str] | None = None,
    **settings,
) -> int:
    """Writes label pictures and overlays for images, as predict.py does.

    `predict("my.yml", "output/best_model/model.pdparams", image_list="photos")` or, as with PaddleSeg,
    `predict(model, model_path, transforms, image_list, image_dir, save_dir)`.

    Args:
        model: a layer that maps `[B, C, H, W]` to a list of logits; or a configuration, as for `train`.
        model_path: .pdparams or .safetensors file; with a layer it may be None.
        transforms: with a layer: a `Compose` of this package or of PaddleSeg, or a list of transforms. A configuration has
            them in its `val_dataset`.
        image_list: a list of files; or, as for predict.py, an image, a folder, a .txt list, a pattern.
        image_dir: results are named by the path of their image relative to it; by default by the file name alone.
        save_dir: folder of the results.
        aug_pred: use the scales and flips in `settings`.
        custom_color: red, green, blue of each class in turn.
        opts: override values of the configuration.
        settings: of `paddle_dnl.evaluation.predict.predict_images`; with a configuration they override its
            `test_config`.

    Returns:
        The number of images.

    Raises:
        PaddleDnlError: the one-line error of predict.py.
    """
    if transforms is not None and not isinstance(model, paddle.nn.Layer):
        raise UsageError(
            "predict: transforms, the third argument, is for a layer; a configuration has its own. Name the images: "
            "image_list=[...]"
        )
    if image_list is None:
        raise UsageError("predict: image_list is missing: files, or an image, a folder, a .txt list")
    settings["aug_eval"] = aug_pred or settings.get("aug_eval", False)
    if isinstance(model, paddle.nn.Layer):
        if transforms is None or opts is not None:
            raise UsageError("predict: a layer needs transforms, a Compose or a list of transforms, and takes no opts")
        _load(model, model_path)
        if isinstance(transforms, list | tuple):
            compose = Compose(transforms)
        else:  # PaddleSeg's Compose, or ours
            compose = Compose(transforms.transforms, transforms.to_rgb, transforms.img_channels)
        custom = custom_color or []
        if len(custom) % 3 or not all(isinstance(v, int) and 0 <= v <= 255 for v in custom):
            raise UsageError(
                f"predict: custom_color must be red, green and blue of each class, 0 to 255; got {custom!r}"
            )
        first = tuple(tuple(custom[i : i + 3]) for i in range(0, len(custom), 3))
        colors = (*first, *bit_palette(257)[1 + len(first) :])  # PaddleSeg's begin with that of 1
        image_format, inputs = ImageFormat.of({"img_channels": compose.img_channels}), [model_path]
    else:
        if model_path is None:
            raise UsageError("predict: model_path is missing: the .pdparams or .safetensors file of trained weights")
        config = _config(model, opts=opts)
        _val_dataset(config)
        compose, image_format = prediction.preparation(config)
        colors = prediction.colors_of(config, custom_color)
        model, inputs = build_model(config, pretrained=str(model_path)), [*config.files, model_path]
        kept = ("auc_roc", "batch_size", "aug_eval")
        settings = {k: v for k, v in config.test_config.items() if k not in kept} | settings
    if isinstance(image_list, str | os.PathLike):
        require_outside(save_dir, image_list)
    images = _images(image_list, image_dir, image_format)
    return prediction.predict_images(
        model, compose, lambda: images, save_dir, colors, image_format, inputs=inputs, **settings
    )


def _config(given: Configuration, **replacements) -> Config:
    """`given` itself if it is a `Config`, else a `Config` made from it."""
    return given if isinstance(given, Config) else Config(given, **replacements)


def _refuse(arguments: dict, beside: str) -> None:
    """Refuses arguments that the other kind of `model` takes."""
    for name, value in arguments.items():
        if value is not None:
            raise UsageError(f"{name}: not beside {beside}; leave it out")


def _val_dataset(config: Config) -> dict:
    if not config.val_dataset_cfg:
        raise UsageError(f"{config.path}: has no val_dataset")
    return config.val_dataset_cfg


def _load(model: paddle.nn.Layer, model_path: str | Path | None) -> None:
    if model_path is not None:
        load_weights(model, str(model_path), what="weights")


def _images(given, image_dir: str | Path | None, image_format: ImageFormat) -> list[tuple[Path, Path]]:
    """(file, name of its results) for each image."""
    if isinstance(given, str | os.PathLike):
        return find_images(given, image_format.endings)
    found = []
    for path in map(Path, given):
        below = image_dir is not None and path.is_relative_to(image_dir)
        found.append((path, path.relative_to(image_dir) if below else Path(path.name)))
    names: dict[Path, Path] = {}
    for path, name in found:
        if names.setdefault(name.with_suffix(""), path) != path:
            raise DataError(
                f"{names[name.with_suffix('')]} and {path} would both be stored as {name.stem}; give image_dir"
            )
    return found
