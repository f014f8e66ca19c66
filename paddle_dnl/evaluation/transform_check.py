# SPDX-License-Identifier: Apache-2.0
"""Checks that validation transforms are deterministic and reversible, and that training transforms keep labels valid."""

import copy
import random

from paddle_dnl.data.transforms.randomness import unchanged_generators
from paddle_dnl.errors import ConfigError
from paddle_dnl.log import logger

import numpy as np

_HEIGHT, _WIDTH = 97, 131
_TRIALS = 8
_SQUASHED = 1.1
# Largest slope, in rows per column, of what was a row: about 6 degrees.
_SKEW = 0.1


def _ramp(channels: int) -> np.ndarray:
    """A picture that gets brighter to the right and, less, to the bottom: float32 `[H, W, C]` (`[H, W]` for 1) in 0..255."""
    ramp = 30 + 120 * np.linspace(0, 1, _WIDTH)[None, :] + 80 * np.linspace(0, 1, _HEIGHT)[:, None]
    return ramp.astype(np.float32) if channels == 1 else np.repeat(ramp[..., None], channels, 2).astype(np.float32)


def _apply(step, sample: dict, seed: int) -> dict:
    random.seed(seed)
    np.random.seed(seed)
    return step(copy.deepcopy(sample))


def _moves(step, sample: dict, result: dict) -> bool:
    """Whether a transform mirrors or turns pictures: whether marks to the right and below are found elsewhere afterwards.

    Only the places of the marks count, not their values, so that changes of colours pass (inversion, gamma, channel order);
    so do resizing and padding.

    Args:
        step: the transform.
        sample: its input.
        result: its output for `sample`.
    """
    (corner, right, below) = (_mark_after(step, sample, result, *place) for place in ((1, 1), (1, 6), (6, 1)))
    if corner is None or right is None or below is None:  # cut off, or without influence
        return False
    to_right, down = right - corner, below - corner  # (rows, columns)
    return to_right[1] <= 0 or abs(to_right[0]) > _SKEW * to_right[1] or down[0] <= 0 or abs(down[1]) > _SKEW * down[0]


def _mark_after(step, sample: dict, result: dict, row: int, column: int) -> np.ndarray | None:
    """Row and column in the transform's output of a mark in its input; None if the output is the same without it.

    Args:
        step: the transform.
        sample: its input.
        result: its output for `sample`.
        row, column: of the mark, which covers one of 8 x 8 equal fields of the input.
    """
    image = sample["img"].copy()
    height, width = (size // 8 for size in image.shape[:2])
    field = image[row * height : (row + 1) * height, column * width : (column + 1) * width]
    low, high = image.min(), image.max()  # the range stays the same, for transforms that stretch it
    field[...] = np.where(field < low / 2 + high / 2, high, low)
    marked, plain = (
        np.nan_to_num(found["img"].astype(np.float64)) for found in (_apply(step, {**sample, "img": image}, 0), result)
    )
    if marked.shape != plain.shape:
        return None
    change = np.abs(marked - plain)
    change = change if change.ndim == 2 else change.sum(2)
    # Transforms that depend on the whole picture also change other pixels, by less.
    change = np.where(change > change.max() / 2, change, 0)
    if not change.any():
        return None
    rows, columns = np.indices(change.shape)
    return np.array([(change * rows).sum(), (change * columns).sum()]) / change.sum()


def _apply_checked(step, sample: dict, place: str) -> dict:
    """Applies one transform to the sample, several times with different random seeds.

    Raises:
        ConfigError: the transform is random, changes the size without noting it, or mirrors.
    """
    name = type(step).__name__
    first = _apply(step, sample, 0)
    others = (_apply(step, sample, seed)["img"] for seed in range(1, _TRIALS))
    if not all(np.array_equal(first["img"], other) for other in others):
        raise ConfigError(f"{place}: {name} changes a picture in another way each time; remove it from the validation")
    before, after = sample["img"].shape[:2], first["img"].shape[:2]
    if before != after and len(first.get("trans_info", [])) == len(sample["trans_info"]):
        raise ConfigError(
            f"{place}: {name} turns a picture of {before[1]}x{before[0]} into {after[1]}x{after[0]} without a way back to the "
            "label's size; remove it from the validation (use Resize or Padding)"
        )
    if _moves(step, sample, first):
        raise ConfigError(
            f"{place}: {name} mirrors or turns pictures, but not their labels; remove it from the validation"
        )
    return first


def require_restorable(dataset) -> None:
    """Checks the transforms of a validation dataset on a small test picture.

    Args:
        dataset: with a list `transforms.transforms`, as ours and PaddleSeg's have; others are not checked.

    Raises:
        ConfigError: names a transform that is random, or whose change of geometry cannot be undone.
    """
    steps = getattr(getattr(dataset, "transforms", None), "transforms", None)
    if not steps:
        return
    channels = getattr(dataset, "img_channels", 3)
    sample = {"img": _ramp(channels), "trans_info": [], "gt_fields": []}
    with unchanged_generators():
        for i, step in enumerate(steps):
            try:
                sample = _apply_checked(step, sample, f"val_dataset.transforms.{i}")
            except ConfigError:
                raise
            except Exception:  # it needs another size, or a label: the trial evaluation with a real picture decides
                break
    # A warning if validation changes the aspect ratio of the most common image size, known from the dataset check.
    sizes = getattr(getattr(dataset, "statistics", None), "sizes", None)
    if not sizes:
        return
    width, height = next(iter(sizes))
    sample = {"img": np.zeros((height, width) if channels == 1 else (height, width, channels), np.float32)}
    sample |= {"trans_info": [], "gt_fields": []}
    for step in steps:
        known = len(sample["trans_info"])
        before = sample["img"].shape
        try:
            sample = step(sample)
        except Exception:  # the trial evaluation reports it
            return
        if [name for name, _ in sample["trans_info"][known:]] != ["resize"]:
            continue
        rows, columns = (after / old for after, old in zip(sample["img"].shape[:2], before[:2], strict=True))
        if max(rows / columns, columns / rows) > _SQUASHED:
            logger.warning(
                f"val_dataset: {type(step).__name__} squashes pictures of {before[1]}x{before[0]} to "
                f"{sample['img'].shape[1]}x{sample['img'].shape[0]} (keep_ratio, ResizeToFit or ResizeByShort keep the shape)"
            )


def require_valid_labels(dataset) -> None:
    """Applies the transforms of a training dataset to a small label that holds the first class, the last one and ignored pixels.

    Interpolation makes numbers that are no class; PaddleSeg's ScalePadding interpolates labels.

    Args:
        dataset: with a list `transforms.transforms`, `num_classes` and `ignore_index`; others are not checked.

    Raises:
        ConfigError: names the transform and the numbers.
    """
    steps = getattr(getattr(dataset, "transforms", None), "transforms", None)
    classes, ignored = getattr(dataset, "num_classes", None), getattr(dataset, "ignore_index", None)
    if not steps or not classes or ignored is None:
        return
    numbers = np.array(
        [0, classes - 1, ignored, 0, ignored, classes - 1], np.uint8 if max(classes, ignored) < 256 else int
    )
    label = numbers[(np.arange(_HEIGHT)[:, None] // 16 + np.arange(_WIDTH)[None, :] // 16) % len(numbers)]
    sample = {
        "img": _ramp(getattr(dataset, "img_channels", 3)),
        "label": label,
        "trans_info": [],
        "gt_fields": ["label"],
    }
    with unchanged_generators():
        for i, step in enumerate(steps):
            try:
                sample = _apply(step, sample, seed=0)
            except Exception:  # it needs another size: the first training sample decides
                break
            found = np.unique(sample.get("label", ignored))
            wrong = found[(found != ignored) & ((found < 0) | (found >= classes) | (found % 1 != 0))]
            if wrong.size:
                raise ConfigError(
                    f"train_dataset.transforms.{i}: {type(step).__name__} makes labels of "
                    f"{', '.join(map(str, wrong[:5]))}, which are neither a class nor ignored, as "
                    "interpolating labels does; use another transform (Padding, ResizeToFit)"
                )
