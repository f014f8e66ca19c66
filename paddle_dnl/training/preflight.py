# SPDX-License-Identifier: Apache-2.0
"""Preflight checks: finds faults of data and model before the first step of a training."""

import contextlib
import copy
from collections.abc import Iterator
from functools import partial

from paddle_dnl.data.checking.check import check_dataset
from paddle_dnl.data.checking.ranks import Ranks
from paddle_dnl.data.classes import classes_of
from paddle_dnl.data.statistics import require_learnable, shared_images
from paddle_dnl.distributed import collectives
from paddle_dnl.errors import ConfigError, DataError, PaddleDnlError
from paddle_dnl.evaluation.evaluator import evaluate
from paddle_dnl.evaluation.inference import evaluating
from paddle_dnl.evaluation.transform_check import require_restorable, require_valid_labels
from paddle_dnl.log import logger

import paddle
from paddle import nn

_BATCH_NORMS = (nn.BatchNorm, nn.BatchNorm1D, nn.BatchNorm2D, nn.BatchNorm3D, nn.SyncBatchNorm)


def check_data(train_dataset, val_dataset, options) -> None:
    """Reads all pictures and labels, unless a cached result exists, and checks their content.

    Args:
        train_dataset, val_dataset: the second may be None.
        options: `TrainOptions`.

    Raises:
        DataError: labels from which nothing is learned.
        ConfigError: validation transforms that are random or cannot be undone.
    """
    for dataset, name in ((train_dataset, "train_dataset"), (val_dataset, "val_dataset")):
        if dataset is not None:
            check_dataset(
                dataset,
                name,
                num_workers=options.num_workers,
                skip_bad=options.skip_bad_samples,
                ranks=Ranks(collectives.all_gather_object, *collectives.place_on_machine()),
            )
    require_learnable(train_dataset, "train_dataset", is_training=True)
    require_valid_labels(train_dataset)
    if val_dataset is None:
        return
    require_learnable(val_dataset, "val_dataset", is_training=False)
    require_restorable(val_dataset)
    seen, held_out = (getattr(dataset, "statistics", None) for dataset in (train_dataset, val_dataset))
    if seen is None or held_out is None:
        return
    shared = shared_images(seen, held_out)
    if shared:
        logger.warning(
            f"val_dataset: {len(shared)} of its {held_out.images} images are in train_dataset too; scores will be too high"
        )
    names = classes_of(val_dataset).names
    unseen = [names[i] for i in seen.absent() if held_out.pixels[i]]
    if unseen:
        logger.warning(f"val_dataset: holds {', '.join(unseen)}, which do not occur in train_dataset")


def check_model(trainer, settings: dict) -> None:
    """Tries one evaluation step; without validation and with a batch size of 1, one forward pass on a training picture.

    Args:
        trainer: a `Trainer` with model and datasets.
        settings: arguments of an evaluation.

    Raises:
        DataError, ConfigError: the evaluation fails, or a batch normalisation gets one value per channel.
    """
    model, val_dataset, batch_size = trainer.model, trainer.val_dataset, trainer.config.batch_size
    if val_dataset is None:
        if batch_size == 1:
            with _single_values(model), paddle.no_grad(), evaluating(model):
                model(paddle.to_tensor(trainer.train_dataset[0]["img"][None]))
        return
    image = val_dataset.file_list[0][0] if hasattr(val_dataset, "file_list") else "the first picture"
    first = copy.copy(val_dataset)
    if hasattr(first, "file_list"):
        first.file_list = val_dataset.file_list[:1]

    def check_classes(index, scores, *rest):
        if scores.shape[0] != val_dataset.num_classes:
            raise DataError(
                f"the model gives {scores.shape[0]} classes, the dataset has num_classes {val_dataset.num_classes}"
            )

    try:
        with _single_values(model) if batch_size == 1 else contextlib.nullcontext():
            evaluate(model, first, print_detail=False, scored=False, observe=check_classes, **settings)
    except PaddleDnlError as error:
        if isinstance(error, _SingleValue):
            raise
        raise type(error)(f"val_dataset: an evaluation of {image} was tried before training: {error}") from error
    except Exception as error:
        raise DataError(
            f"val_dataset: an evaluation of {image} was tried before training and failed: {type(error).__name__}: "
            f"{' '.join(str(error).split())[-300:]}"
        ) from error


class _SingleValue(ConfigError):
    pass


@contextlib.contextmanager
def _single_values(model: nn.Layer) -> Iterator[None]:
    """While the model runs, refuses batch normalisation over a single value per channel, as with a batch size of 1.

    Its output would not depend on the picture. Layers that use stored statistics are not checked.

    Raises:
        ConfigError: names the layer.
    """

    def refuse_one_value(name: str, layer: nn.Layer, inputs: tuple) -> None:
        shape = inputs[0].shape
        if shape[0] == 1 and all(side == 1 for side in shape[2:]):
            raise _SingleValue(
                f"batch_size: 1 gives the batch normalisation {name} one value per channel, so that its output does not "
                "depend on the picture; give a batch_size of at least 2"
            )

    handles = []
    for name, layer in model.named_sublayers():
        together = collectives.world_size() if isinstance(layer, nn.SyncBatchNorm) else 1
        uses_batch = (
            isinstance(layer, _BATCH_NORMS) and layer.training and not getattr(layer, "_use_global_stats", None)
        )
        if uses_batch and together == 1:
            handles.append(layer.register_forward_pre_hook(partial(refuse_one_value, name)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
