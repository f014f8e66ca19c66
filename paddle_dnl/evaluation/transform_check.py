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


def _probe(channels: int, height: int = _HEIGHT, width: int = _WIDTH) -> np.ndarray:
    """A ramp that gets brighter to the right and, less, to the bottom, float32 `[H, W, C]` (`[H, W]` for 1) in 0..255."""
    ramp = 30 + 120 * np.linspace(0, 1, width)[None, :] + 80 * np.linspace(0, 1, height)[:, None]
    return ramp.astype(np.float32) if channels == 1 else np.repeat(ramp[..., None], channels, 2).astype(np.float32)


def _apply(step, sample: dict, seed: int) -> dict:
    random.seed(seed)
    np.random.seed(seed)
    return step(copy.deepcopy(sample))


def _look_at(step, sample: dict, place: str) -> dict:
    """Applies one transform to the sample.

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
    # The test picture is a ramp; mirrored or turned, it gets brighter to the left or to the top. Medians ignore padding.
    image = first["img"]
    grey = image if image.ndim == 2 else image.mean(2)
    to_the_right = np.median(np.diff(grey[: grey.shape[0] // 2 + 1, : grey.shape[1] // 2 + 1], axis=1))
    to_the_bottom = np.median(np.diff(grey[: grey.shape[0] // 2 + 1, : grey.shape[1] // 2 + 1], axis=0))
    if to_the_right < 0 or to_the_bottom < 0:
        raise ConfigError(
            f"{place}: {name} mirrors or turns pictures, but not their labels; remove it from the validation"
        )
    return first


def require_restorable(dataset, where: str = "val_dataset") -> None:
    """Applies each validation transform to a small ramp, which gets brighter to the right and to the bottom.

    Args:
        dataset: has `transforms` with a list `transforms`, as ours and PaddleSeg's datasets; others pass.
        where: dotted key of the dataset.

    Raises:
        ConfigError: a transform that is random, or whose change of geometry cannot be undone; names it.
    """
    steps = getattr(getattr(dataset, "transforms", None), "transforms", None)
    if not steps:
        return
    channels = getattr(dataset, "img_channels", 3)
    sample = {"img": _probe(channels), "trans_info": [], "gt_fields": []}
    with unchanged_generators():
        for i, step in enumerate(steps):
            place = f"{where}.transforms.{i}"
            try:
                sample = _look_at(step, sample, place)
            except ConfigError:
                raise
            except (
                Exception
            ):  # such as a picture of the wrong size, or no label: left to the trial evaluation of a real one
                break
    _say_squashed(dataset, steps, channels, where)


def require_valid_labels(dataset, where: str = "train_dataset") -> None:
    """Applies each training transform to a small label of the first class, the last one and the ignored one.

    Interpolated labels hold numbers that are no class; PaddleSeg's ScalePadding makes such by cubic interpolation.

    Args:
        dataset: has `transforms` with a list `transforms`, `num_classes` and `ignore_index`; others pass.
        where: dotted key of the dataset.

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
        "img": _probe(getattr(dataset, "img_channels", 3)),
        "label": label,
        "trans_info": [],
        "gt_fields": ["label"],
    }
    with unchanged_generators():
        for i, step in enumerate(steps):
            try:
                sample = _apply(step, sample, seed=0)
            except Exception:  # such as a picture of the wrong size: left to the first real one
                break
            found = np.unique(sample.get("label", ignored))
            wrong = found[(found != ignored) & ((found < 0) | (found >= classes) | (found % 1 != 0))]
            if wrong.size:
                raise ConfigError(
                    f"{where}.transforms.{i}: {type(step).__name__} makes labels of {', '.join(map(str, wrong[:5]))}, which are "
                    "neither a class nor ignored, as interpolating labels does; use another transform (Padding, ResizeToFit)"
                )


def _say_squashed(dataset, steps, channels: int, where: str) -> None:
    """Warns when validation changes the aspect ratio of the most common image size, known from the dataset check."""
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
        except Exception:  # left to the trial evaluation
            return
        if [name for name, _ in sample["trans_info"][known:]] != ["resize"]:
            continue
        rows, columns = (after / old for after, old in zip(sample["img"].shape[:2], before[:2], strict=True))
        if max(rows / columns, columns / rows) > _SQUASHED:
            logger.warning(
                f"{where}: {type(step).__name__} squashes pictures of {before[1]}x{before[0]} to "
                f"{sample['img'].shape[1]}x{sample['img'].shape[0]} (keep_ratio, ResizeToFit or ResizeByShort keep the shape)"
            )
