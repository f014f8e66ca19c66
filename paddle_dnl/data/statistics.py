# SPDX-License-Identifier: Apache-2.0
"""Statistics of a dataset from the check before training: pixels and images per class, ignored pixels, sizes, duplicates."""

import base64
import hashlib
from collections import Counter
from dataclasses import dataclass, field

from paddle_dnl.data.classes import classes_of, ignored_number
from paddle_dnl.errors import DataError
from paddle_dnl.log import logger

import numpy as np

RARE_SHARE = 0.001  # of the labelled pixels
_NAMES_SHOWN = 8


@dataclass
class SampleCounts:
    """Counts of one image and its label.

    Attributes:
        size: (width, height).
        digest: 64-bit hash of the image file's content, to find duplicates.
        pixels: number of pixels of each class, int64 `[K]`.
        ignored: number of ignored pixels.
        stored: the distinct numbers in the label file, at most 257 of them.
        values: smallest and largest value of the image on the scale 0..255.
    """

    size: tuple[int, int]
    digest: int
    pixels: np.ndarray
    ignored: int
    stored: tuple[int, ...]
    values: tuple[float, float]

    @classmethod
    def of(
        cls,
        content: np.ndarray,
        image: np.ndarray,
        stored: np.ndarray,
        label: np.ndarray,
        num_classes: int,
        ignore_index: int,
    ):
        """Counts one sample.

        Args:
            content: bytes of the image file.
            image: on the scale 0..255.
            stored: the label as stored.
            label: the label in class numbers; contains only classes and `ignore_index`.
            num_classes, ignore_index: of the dataset.
        """
        valid = label[label != ignore_index]
        pixels = np.bincount(valid.ravel().astype(np.int64), minlength=num_classes)[:num_classes]
        return cls.of_pixels(content, image, np.unique(stored), pixels, int(label.size - valid.size))

    @classmethod
    def of_pixels(cls, content: np.ndarray, image: np.ndarray, numbers: np.ndarray, pixels: np.ndarray, ignored: int):
        """The counts of a sample whose label is already counted.

        Args:
            content: bytes of the image file.
            image: on the scale 0..255.
            numbers: the distinct numbers in the label file, sorted.
            pixels: number of pixels of each class, int64 `[K]`.
            ignored: number of ignored pixels.
        """
        digest = int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")
        size, values = (image.shape[1], image.shape[0]), (float(image.min()), float(image.max()))
        return cls(size, digest, pixels, ignored, tuple(numbers[:257].tolist()), values)


@dataclass
class DatasetStatistics:
    """Sums over a dataset.

    Attributes:
        images: number of images.
        pixels: number of pixels of each class, `[K]`.
        images_with: number of images in which each class occurs, `[K]`.
        ignored: number of ignored pixels.
        sizes: (width, height) -> number of images.
        stored: all numbers that occur in the label files.
        digests: hash of each image in the order of the dataset, uint64 `[N]`.
        values: smallest and largest value of all images on the scale 0..255.
        multilabel: whether a pixel can have several classes; shares are then relative to all pixels of the images.
    """

    images: int
    pixels: list[int]
    images_with: list[int]
    ignored: int = 0
    sizes: dict[tuple[int, int], int] = field(default_factory=dict)
    stored: list[int] = field(default_factory=list)
    digests: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64))
    values: tuple[float, float] = (0.0, 255.0)
    multilabel: bool = False

    @classmethod
    def joined(cls, shares: list["DatasetStatistics"]) -> "DatasetStatistics":
        """The sums over parts of a dataset."""
        sizes: Counter = Counter()
        for share in shares:
            sizes.update(share.sizes)
        return cls(
            images=sum(share.images for share in shares),
            pixels=np.sum([share.pixels for share in shares], 0).tolist(),
            images_with=np.sum([share.images_with for share in shares], 0).tolist(),
            ignored=sum(share.ignored for share in shares),
            sizes=dict(sizes.most_common()),
            stored=sorted({number for share in shares for number in share.stored}),
            digests=np.concatenate([share.digests for share in shares]),
            values=(min(share.values[0] for share in shares), max(share.values[1] for share in shares)),
            multilabel=shares[0].multilabel,
        )

    def to_json(self) -> dict:
        """The statistics as values that JSON can store."""
        sizes = [[*size, count] for size, count in self.sizes.items()]
        digests = base64.b64encode(self.digests.astype("<u8").tobytes()).decode()
        return {**vars(self), "sizes": sizes, "digests": digests}

    @classmethod
    def from_json(cls, values: dict) -> "DatasetStatistics":
        """Inverse of `to_json`.

        Raises:
            KeyError, TypeError, ValueError: the values are not from `to_json`.
        """
        sizes = {(width, height): count for width, height, count in values["sizes"]}
        digests = np.frombuffer(base64.b64decode(values["digests"], validate=True), "<u8")
        if len(digests) != values["images"]:
            raise ValueError("digests")
        return cls(**{**values, "sizes": sizes, "digests": digests})

    @property
    def labelled(self) -> int:
        """Number of labelled pixels."""
        return sum(self.pixels)

    @property
    def _area(self) -> int:
        return sum(width * height * count for (width, height), count in self.sizes.items())

    @property
    def ignored_share(self) -> float:
        """Share of ignored pixels; for multi-label data, of the pixels of all masks."""
        pixels = self._area * len(self.pixels) if self.multilabel else self.ignored + self.labelled
        return self.ignored / max(1, pixels)

    def shares(self) -> np.ndarray:
        """Share of each class in the labelled pixels, or for multi-label data in all pixels; float64 `[K]`."""
        return np.asarray(self.pixels, np.float64) / max(1, self._area if self.multilabel else self.labelled)

    def absent(self) -> list[int]:
        """Classes without a pixel."""
        return [i for i, count in enumerate(self.pixels) if count == 0]

    def rare(self) -> list[int]:
        """Classes that occur, but in fewer than one of a thousand pixels."""
        return [i for i, share in enumerate(self.shares()) if 0 < share < RARE_SHARE]


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
    _say_scale(dataset, statistics, where)
    if statistics.ignored_share > 0.5:
        logger.warning(
            f"{where}: {100 * statistics.ignored_share:.0f} % of its pixels are ignored ({dataset.ignore_index}); "
            "are the labels right?"
        )


def _say_scale(dataset, statistics: DatasetStatistics, where: str) -> None:
    """Logs which part of `value_range` the images use; warns of values outside, which are not clipped, and of a small part."""
    value_range = getattr(dataset, "value_range", None)
    if value_range is None:
        return
    low, high = value_range
    found = [low + value * (high - low) / 255 for value in statistics.values]
    text = f"{where}: its images hold {found[0]:g} to {found[1]:g}; value_range {low:g} to {high:g} becomes 0 to 255"
    slack = 1e-4 * (high - low)
    if found[0] < low - slack or found[1] > high + slack:
        logger.warning(f"{text}, what is outside is not clipped")
    elif found[1] - found[0] < 0.05 * (high - low):
        logger.warning(f"{text}, of which they fill {100 * (found[1] - found[0]) / (high - low):.1f} %: is it right?")
    else:
        logger.info(text)


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
