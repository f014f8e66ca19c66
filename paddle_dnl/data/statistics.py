# SPDX-License-Identifier: Apache-2.0
"""What the counts of a dataset tell: class weights, a crop size, duplicates, labels from which nothing can be learned."""

from paddle_dnl.data.checking.counts import DatasetStatistics
from paddle_dnl.data.classes import classes_of, ignored_number
from paddle_dnl.errors import DataError
from paddle_dnl.log import logger

import numpy as np

_NAMES_SHOWN = 8


def class_weights(statistics: DatasetStatistics) -> list[float]:
    """Class weights for `CrossEntropyLoss`, larger for rare classes: median frequency / frequency, limited to [0.1, 10].

    The frequency of a class is its share of the pixels of the images in which it occurs (Eigen and Fergus 2015). All images
    are counted with the mean size. Absent classes get 1.
    """
    images_with = np.asarray(statistics.images_with, np.float64)
    mean_pixels = statistics.labelled / max(1, statistics.images)
    present = images_with > 0
    frequency = np.asarray(statistics.pixels, np.float64) / np.where(present, images_with * mean_pixels, 1)
    weights = np.ones(len(frequency))
    if present.any():
        weights[present] = np.median(frequency[present]) / frequency[present]
    return [round(float(weight), 3) for weight in np.clip(weights, 0.1, 10)]


def _listed(names: tuple[str, ...], classes: list[int]) -> str:
    more = f" and {len(classes) - _NAMES_SHOWN} more" if len(classes) > _NAMES_SHOWN else ""
    return ", ".join(names[i] for i in classes[:_NAMES_SHOWN]) + more


def summary(statistics: DatasetStatistics, names: tuple[str, ...], where: str) -> list[str]:
    """Two log lines that summarise a dataset."""
    (width, height), common = next(iter(statistics.sizes.items()), ((0, 0), 0))
    size = (
        f"all {width}x{height}"
        if len(statistics.sizes) == 1
        else f"{len(statistics.sizes)} sizes, {common} {width}x{height}"
    )
    shares = statistics.shares()
    order = sorted(range(len(names)), key=lambda i: -shares[i])[:_NAMES_SHOWN]
    largest = ", ".join(f"{names[i]} {100 * shares[i]:.1f} %" for i in order if shares[i] > 0)
    absent, rare = statistics.absent(), statistics.rare()
    notes = [f"{100 * statistics.ignored_share:.1f} % of the pixels ignored"]
    notes += [f"no pixel of {_listed(names, absent)}"] if absent else []
    notes += [f"rare (below 0.1 %): {_listed(names, rare)}"] if rare else []
    return [f"{where}: {statistics.images} images ({size}); {largest}", f"{where}: {'; '.join(notes)}"]


def require_learnable(dataset, where: str, is_training: bool) -> None:
    """Refuses labels from which nothing can be learned, and logs the statistics of a dataset.

    Args:
        dataset: a checked dataset (with `statistics`); others are accepted without a check.
        where: name of the dataset in messages.
        is_training: whether it is trained on; only then absent classes are warned of.

    Raises:
        DataError: the labels contain only 0 and the ignored 255, or no labelled pixel at all.
    """
    statistics = getattr(dataset, "statistics", None)
    if statistics is None:
        return
    names = classes_of(dataset).names
    if set(statistics.stored) == {0, 255} and dataset.ignore_index == 255:
        raise DataError(
            f"{where}: its labels hold only 0 and 255, and 255 is ignored, so that one class is left and any model is right. "
            "Masks of 0 and 255 must become 0 and 1: `paddle-dnl data import ... --format binary-masks`"
        )
    if statistics.labelled == 0:
        if getattr(dataset, "multilabel", False):
            raise DataError(f"{where}: none of its masks holds a pixel; there is nothing to learn")
        raise DataError(
            f"{where}: every pixel of its labels is ignored ({dataset.ignore_index}); there is nothing to learn"
        )
    for line in summary(statistics, names, where):
        logger.info(line)
    ignored = dataset.ignore_index
    if 0 <= ignored < len(names) and not statistics.multilabel:
        logger.warning(
            f"{where}: ignore_index {ignored} is the class {names[ignored]} too, whose pixels do not count; if they should, "
            f"store ignored pixels as a number that is no class, such as {ignored_number(len(names))}, and set ignore_index to it"
        )
    absent = statistics.absent()
    if absent and is_training:
        logger.warning(f"{where}: no pixel of {_listed(names, absent)}; the model cannot learn what it never sees")
    value_range = getattr(dataset, "value_range", None)
    if value_range is not None:
        low, high = value_range
        least, most = (low + value * (high - low) / 255 for value in statistics.values)
        text = f"{where}: its images hold {least:g} to {most:g}; value_range {low:g} to {high:g} becomes 0 to 255"
        slack = 1e-4 * (high - low)
        if least < low - slack or most > high + slack:
            logger.warning(f"{text}, what is outside is not clipped")
        elif most - least < 0.05 * (high - low):
            logger.warning(f"{text}, of which they fill {100 * (most - least) / (high - low):.1f} %: is it right?")
        else:
            logger.info(text)
    if statistics.ignored_share > 0.5:
        logger.warning(
            f"{where}: {100 * statistics.ignored_share:.0f} % of its pixels are ignored ({dataset.ignore_index}); "
            "are the labels right?"
        )


def shared_images(first: DatasetStatistics, second: DatasetStatistics) -> list[int]:
    """Indices in `second` of images whose content also occurs in `first`."""
    return np.flatnonzero(np.isin(second.digests, first.digests)).tolist()


def suggest_crop(sizes: dict[tuple[int, int], int], largest: int = 768) -> list[int]:
    """[width, height] of training crops: the median size, rounded down to a multiple of 32, from 64 to `largest`.

    Shorter pictures are padded.
    """
    sides = []
    for axis in range(2):
        values = np.repeat([size[axis] for size in sizes], list(sizes.values()))
        sides.append(int(max(64, min(largest, np.median(values)) // 32 * 32)))
    return sides
