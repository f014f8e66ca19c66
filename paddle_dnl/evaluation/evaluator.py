# SPDX-License-Identifier: Apache-2.0
"""Evaluates a model on a dataset: each image once, distributed over the ranks, into one confusion matrix."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from paddle_dnl.data.classes import classes_of
from paddle_dnl.data.loading import load_batches
from paddle_dnl.distributed import collectives
from paddle_dnl.errors import DataError, UsageError
from paddle_dnl.evaluation import class_table
from paddle_dnl.evaluation.batches import Batches, Share, at_scales, collate
from paddle_dnl.evaluation.inference import (
    evaluating,
    infer,
    infer_augmented,
    infer_pyramid,
    predicted_masks,
    restore,
)
from paddle_dnl.evaluation.metrics import Areas, Metrics, RocCounts, confusion_matrix, mask_counts
from paddle_dnl.evaluation.options import InferenceOptions
from paddle_dnl.log import logger, progress
from paddle_dnl.training import amp

import numpy as np
import paddle
import paddle.nn.functional as F


@dataclass
class EvalResult:
    """Result of an evaluation; unpacks to the tuple of PaddleSeg's `evaluate`."""

    metrics: Metrics
    confusion: np.ndarray | None  # None for multi-label masks
    num_images: int
    seconds: float
    auc_roc: float | None = None
    areas: Areas | None = None

    def __iter__(self) -> Iterator:
        """mIoU, accuracy, IoU per class, precision per class, kappa."""
        found = self.metrics
        return iter((found.miou, found.acc, found.class_iou, found.class_precision, found.kappa))

    def log(self, names: tuple[str, ...]) -> None:
        """Logs the scores in PaddleSeg's format, and a table of the classes `names`."""
        metrics = self.metrics
        auc = "" if self.auc_roc is None else f" Auc_roc: {self.auc_roc:.4f}"
        logger.info(
            f"[EVAL] #Images: {self.num_images} mIoU: {metrics.miou:.4f} Acc: {metrics.acc:.4f} "
            f"Kappa: {metrics.kappa:.4f} Dice: {metrics.dice:.4f}{auc}"
        )
        with np.printoptions(precision=4, suppress=True, linewidth=100):
            logger.info(f"[EVAL] Class IoU: \n{metrics.class_iou.round(4)}")
            logger.info(f"[EVAL] Class Precision: \n{metrics.class_precision.round(4)}")
            logger.info(f"[EVAL] Class Recall: \n{metrics.class_recall.round(4)}")
        if metrics.absent:
            logger.info(
                f"[EVAL] {len(metrics.absent)} classes occur neither in labels nor in predictions and are left out of the "
                f"means: {', '.join(map(str, metrics.absent))}"
            )
        logger.info(f"[EVAL] Classes: \n{class_table.table_text(class_table.class_rows(names, self.areas))}")


def evaluate(
    model: paddle.nn.Layer,
    dataset,
    *,
    batch_size: int = 1,
    num_workers: int = 0,
    precision: str = "fp32",
    amp_level: str = "O1",
    auc_roc: bool = False,
    use_multilabel: bool = False,
    print_detail: bool = True,
    stop: Callable[[], bool] | None = None,
    observe: Callable | None = None,
    scored: bool = True,
    **inference,
) -> EvalResult | None:
    """Evaluates and logs the scores in PaddleSeg's format.

    Args:
        model: maps `[B, 3, H, W]` to a list of logits; the modes of its layers are restored afterwards. If its attribute
            `gives_classes` is true, its method `predict_classes(images, trans_info)`, which returns `[B, h, w]`, is used
            instead.
        dataset: yields dicts with `img [3, H, W]`, `label [h, w]` and `trans_info`; has `num_classes` and `ignore_index`.
        batch_size, num_workers: of the loader; images of one batch must have the same size.
        precision, amp_level: see `paddle_dnl.training.amp`.
        auc_roc: also compute the area under the ROC curve.
        use_multilabel: a pixel may have several classes: the label is masks `[K, h, w]`, and a class is predicted where the
            sigmoid of its logit is above 0.5.
        print_detail: write log lines.
        stop: called before each batch; when it returns true, this rank stops.
        observe: called for each image of this rank with its index, probabilities or logits `[K, h, w]` (a tensor; None for
            a model that returns classes), whether these are probabilities, prediction `[h, w]` and label `[h, w]` (masks
            `[K, h, w]` with `use_multilabel`).
        scored: False computes no scores, to check that model, pictures and settings fit together.
        inference: fields of `InferenceOptions`, such as `is_slide`, `scales` and `flip_horizontal`. With the average `softmax`
            and `ResizeToFit` in the dataset, each scale is made from the original picture, as published; otherwise from
            the network's input.

    Returns:
        The same scores on every rank; None on all ranks if one was stopped, or without `scored`.

    Raises:
        DataError: an unusable image or label.
        UsageError: contradictory arguments.
    """
    if len(dataset) == 0:
        raise DataError("the dataset to evaluate has no images")
    options = InferenceOptions(**inference)
    began = time.perf_counter()
    scaled = at_scales(dataset, options)
    precision = amp.effective_precision(precision)
    share = Share(dataset, collectives.rank(), collectives.world_size(), scaled)
    batches = Batches(len(share), batch_size)
    if print_detail:
        logger.info(f"Start evaluating (total_samples: {len(dataset)}, total_iters: {len(batches)})...")
    if getattr(model, "gives_classes", False) and (options.is_slide or options.aug_eval or auc_roc or use_multilabel):
        raise UsageError("windows, scales, flips, several classes and auc_roc need logits, and the model gives classes")
    if use_multilabel and (auc_roc or options.gives_probabilities):
        raise UsageError("use_multilabel goes with neither auc_roc nor the average softmax: its scores are no softmax")
    kind = _MaskCount if use_multilabel else _Count
    count = kind(dataset, auc_roc, is_probability=options.gives_probabilities)
    count.observe, count.indices = observe, iter(share.indices)
    loaded = load_batches(share, batches, collate, num_workers if len(share) else 0, read_ahead=True)
    seen = collectives.SharedCounter()
    with evaluating(model):
        for data in progress(loaded, "evaluate", len(dataset), seen.total) if print_detail else loaded:
            label = np.asarray(data["label"])
            if stop is not None and stop():
                count.stopped = True
                break
            with amp.autocast(precision, amp_level):
                for scores, truth in _scores(model, data, label, options):
                    count.add(scores, truth)
            seen.add(len(label))
    if not scored:
        return None
    collectives.barrier("the end of the evaluation")
    stopped, counts, *curves = collectives.all_reduce_sums(count.parts())
    if stopped:
        return None
    areas = Areas(*counts) if isinstance(count, _MaskCount) else Areas.of(counts)
    confusion = None if isinstance(count, _MaskCount) else counts
    seconds = time.perf_counter() - began
    result = EvalResult(Metrics.from_areas(areas), confusion, len(dataset), seconds, areas=areas)
    if count.curves is not None:
        count.curves.counts = curves[0]
        result.auc_roc = count.curves.area()
    if print_detail:
        result.log(classes_of(dataset).names)
    return result


def _tensor(array) -> paddle.Tensor:
    return array if isinstance(array, paddle.Tensor) else paddle.to_tensor(array)


def _scores(model, data: dict, label: np.ndarray, options: InferenceOptions) -> Iterator:
    """Yields scores and label `[B, h, w]` of some images at a time.

    Scores are logits, or probabilities for the average `softmax`, `[B, K, h, w]`; classes `[B, h, w]` from a model that gives
    classes.
    """
    if getattr(model, "gives_classes", False):
        yield model.predict_classes(np.asarray(data["img"]), data["trans_info"]), label
    elif not options.aug_eval:
        logits = infer(model, _tensor(data["img"]), options)
        # Resized one by one, since logits at full size are the largest array of an evaluation.
        parts = [slice(i, i + 1) for i in range(len(label))] if len(label) > 1 else [slice(None)]
        for part in parts:
            one = logits if len(parts) == 1 else logits[part]
            yield restore(one, data["trans_info"], options.align_corners), label[part]
    elif "pyramid" in data:
        images = ((_tensor(level["img"]), level["trans_info"]) for level in data["pyramid"])
        yield infer_pyramid(model, images, options), label
    else:
        yield infer_augmented(model, _tensor(data["img"]), data["trans_info"], options), label


class _Count:
    """Pixel counts of one rank.

    Args:
        dataset: has `num_classes` and `ignore_index`.
        auc_roc: keep counts for the ROC curve.
        is_probability: scores are probabilities, not logits.
    """

    def __init__(self, dataset, auc_roc: bool, is_probability: bool):
        self.num_classes, self.ignore_index = dataset.num_classes, dataset.ignore_index
        self.confusion = np.zeros((self.num_classes, self.num_classes), np.int64)
        self.curves = RocCounts(self.num_classes) if auc_roc else None
        self.is_probability, self.stopped = is_probability, False
        self.observe: Callable | None = None
        self.indices: Iterator[int] = iter(())  # indices of the next images

    def parts(self) -> list[np.ndarray]:
        """Arrays to sum over ranks: whether this one was stopped, pixel counts and, if wanted, counts of the ROC curves."""
        curves = [] if self.curves is None else [self.curves.counts]
        return [np.array(int(self.stopped)), self.confusion, *curves]

    def add(self, scores: paddle.Tensor | np.ndarray, label: np.ndarray) -> None:
        """Counts `[B, K, h, w]`, or classes `[B, h, w]`, against `[B, h, w]`."""
        is_classes = scores.ndim == 3
        pred = scores if is_classes else paddle.argmax(scores, axis=1, dtype="int32").numpy()
        self.confusion += confusion_matrix(pred, label, self.num_classes, self.ignore_index)
        if self.curves is not None:
            probabilities = (scores if self.is_probability else F.softmax(scores, axis=1)).numpy()
            for one, truth in zip(probabilities, label, strict=True):
                self.curves.add(one, truth, self.ignore_index)
        if self.observe is not None:
            for i in range(len(label)):
                one = None if is_classes else scores[i]
                self.observe(next(self.indices), one, self.is_probability, pred[i], label[i])


class _MaskCount(_Count):
    """Pixel counts of one rank for multi-label masks."""

    def __init__(self, dataset, auc_roc: bool, is_probability: bool):
        super().__init__(dataset, auc_roc, is_probability)
        self.confusion = np.zeros((4, self.num_classes), np.int64)

    def add(self, scores: paddle.Tensor, label: np.ndarray) -> None:
        """Counts `[B, K, h, w]` against masks of that shape."""
        pred = predicted_masks(scores).numpy()
        label = label.reshape(pred.shape) if label.ndim == 3 and pred.shape[1] == 1 else label
        self.confusion += mask_counts(pred, label, self.ignore_index)
        if self.observe is not None:
            for i in range(len(label)):
                self.observe(next(self.indices), scores[i], False, pred[i], label[i])
