"""Evaluation of a model on a dataset: every image once, over all ranks, into one confusion matrix."""

import time
from dataclasses import dataclass

from paddle_dnl.engine import amp, distributed
from paddle_dnl.engine.inference import infer, infer_augmented, restore
from paddle_dnl.engine.loading import load_batches
from paddle_dnl.engine.metrics import Metrics, RocCounts, confusion_matrix
from paddle_dnl.errors import DataError, UsageError
from paddle_dnl.log import logger, progress

import numpy as np
import paddle
import paddle.nn.functional as F


@dataclass
class EvalResult:
    """What an evaluation found."""

    metrics: Metrics
    confusion: np.ndarray
    num_images: int
    seconds: float
    auc_roc: float | None = None


class _Share(paddle.io.Dataset):
    """The images of one rank: every `world_size`-th, so that no image is read twice."""

    def __init__(self, dataset):
        self.dataset = dataset
        self.indices = range(distributed.rank(), len(dataset), distributed.world_size())

    def __len__(self):
        return len(self.indices)

    def __getitem__(self, i):
        return self.dataset[self.indices[i]]


def _collate(samples: list[dict]) -> dict:
    """Stacks images; labels stay as they are stored, in the smallest integer type that holds them."""
    shapes = {sample["img"].shape for sample in samples}
    infos = {repr(sample.get("trans_info", [])) for sample in samples}
    if len(shapes) > 1 or len(infos) > 1:
        raise DataError(f"batch_size {len(samples)}: images of one batch differ in size; evaluate with batch_size 1")
    return {
        "img": np.stack([sample["img"] for sample in samples]),
        "label": np.stack([np.squeeze(sample["label"]).astype(np.int32) for sample in samples]),
        # One level less than PaddlePaddle's own collation makes: plain numbers, not tensors.
        "trans_info": samples[0].get("trans_info", []),
    }


class _Batches:
    """Consecutive indices in lists of `batch_size`."""

    def __init__(self, count: int, batch_size: int):
        self.count, self.batch_size = count, batch_size

    def __len__(self):
        return -(-self.count // self.batch_size)

    def __iter__(self):
        for start in range(0, self.count, self.batch_size):
            yield list(range(start, min(start + self.batch_size, self.count)))


def evaluate(
    model: paddle.nn.Layer,
    dataset,
    *,
    batch_size: int = 1,
    num_workers: int = 0,
    precision: str = "fp32",
    amp_level: str = "O1",
    aug_eval: bool = False,
    scales=1.0,
    flip_horizontal: bool = False,
    flip_vertical: bool = False,
    is_slide: bool = False,
    stride=None,
    crop_size=None,
    average: str = "logits",
    align_corners: bool = False,
    auc_roc: bool = False,
    print_detail: bool = True,
) -> EvalResult:
    """Evaluates and logs the scores in PaddleSeg's lines.

    Args:
        model: maps `[B, 3, H, W]` to a list of logits; it is left in the mode it was in.
        dataset: of dicts with `img [3, H, W]`, `label [h, w]` and `trans_info`; has `num_classes` and `ignore_index`.
        batch_size, num_workers: of the loader; images of one batch must agree in size.
        precision, amp_level: see `paddle_dnl.engine.amp`.
        aug_eval: use `scales` and flips.
        scales, flip_horizontal, flip_vertical, is_slide, stride, crop_size, average, align_corners: see
            `paddle_dnl.engine.inference`.
        auc_roc: also the area under the ROC curve.
        print_detail: write log lines.

    Returns:
        The same scores on every rank.

    Raises:
        DataError: an unusable image or label.
        UsageError: contradictory arguments.
    """
    if len(dataset) == 0:
        raise DataError("the dataset to evaluate has no images")
    began = time.perf_counter()
    if is_slide and not (crop_size and stride):
        raise UsageError("is_slide needs crop_size and stride")
    slide = {"is_slide": is_slide, "crop_size": crop_size, "stride": stride}
    augment = None
    if aug_eval:
        augment = {
            "scales": scales if isinstance(scales, list | tuple) else (float(scales),),
            "flip_horizontal": flip_horizontal,
            "flip_vertical": flip_vertical,
            "average": average,
        }
    precision = amp.effective_precision(precision)
    share = _Share(dataset)
    batches = _Batches(len(share), batch_size)
    if print_detail:
        logger.info(f"Start evaluating (total_samples: {len(dataset)}, total_iters: {len(batches)})...")
    count = _Count(dataset.num_classes, dataset.ignore_index, auc_roc)
    was_training = model.training
    model.eval()
    try:
        loaded = load_batches(share, batches, _collate, num_workers if len(share) else 0, read_ahead=True)
        for data in progress(loaded, "evaluate", len(batches)):
            with amp.autocast(precision, amp_level):
                scores = _scores(model, data, slide, augment, align_corners)
            count.add(scores, data["label"], is_probability=aug_eval and average == "softmax")
    finally:
        if was_training:
            model.train()
    confusion = distributed.all_reduce_sum(count.confusion)
    result = EvalResult(Metrics.from_confusion(confusion), confusion, len(dataset), time.perf_counter() - began)
    if count.curves is not None:
        count.curves.counts = distributed.all_reduce_sum(count.curves.counts)
        result.auc_roc = count.curves.area()
    if print_detail:
        _log(result)
    return result


def _scores(model, data: dict, slide: dict, augment: dict | None, align_corners: bool) -> paddle.Tensor:
    """Logits, or probabilities for the softmax rule, at the size of the label."""
    image = paddle.to_tensor(data["img"])
    if augment is not None:
        return infer_augmented(model, image, data["trans_info"], align_corners=align_corners, **slide, **augment)
    return restore(infer(model, image, **slide), data["trans_info"], align_corners)


class _Count:
    """What one rank has counted."""

    def __init__(self, num_classes: int, ignore_index: int, auc_roc: bool):
        self.num_classes, self.ignore_index = num_classes, ignore_index
        self.confusion = np.zeros((num_classes, num_classes), np.int64)
        self.curves = RocCounts(num_classes) if auc_roc else None

    def add(self, scores: paddle.Tensor, label, is_probability: bool) -> None:
        label = np.asarray(label)
        pred = paddle.argmax(scores, axis=1, dtype="int32").numpy()
        self.confusion += confusion_matrix(pred, label, self.num_classes, self.ignore_index)
        if self.curves is not None:
            probabilities = (scores if is_probability else F.softmax(scores, axis=1)).numpy()
            for one, truth in zip(probabilities, label, strict=True):
                self.curves.add(one, truth, self.ignore_index)


def _log(result: EvalResult) -> None:
    metrics = result.metrics
    auc = "" if result.auc_roc is None else f" Auc_roc: {result.auc_roc:.4f}"
    logger.info(
        f"[EVAL] #Images: {result.num_images} mIoU: {metrics.miou:.4f} Acc: {metrics.acc:.4f} "
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
