# SPDX-License-Identifier: Apache-2.0
"""Counts of the check before training: pixels and images per class, ignored share, sizes, duplicates."""

import base64
import hashlib
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

RARE_SHARE = 0.001  # of the labelled pixels


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
