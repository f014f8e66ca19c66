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
    """One image and its label.

    Attributes:
        size: (width, height).
        digest: of the image file's content, to find duplicates, 64 bits.
        pixels: of each class, int64 `[K]`.
        ignored: pixels that do not count.
        stored: the numbers in the label file, at most 257 of them.
        values: least and greatest number of the image on the scale 0..255.
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
            stored: numbers in the label file.
            label: the same in the model's classes, all of them classes or `ignore_index`.
            num_classes, ignore_index: of the dataset.
        """
        valid = label[label != ignore_index]
        pixels = np.bincount(valid.ravel().astype(np.int64), minlength=num_classes)[:num_classes]
        return cls.of_pixels(content, image, np.unique(stored), pixels, int(label.size - valid.size))

    @classmethod
    def of_pixels(cls, content: np.ndarray, image: np.ndarray, numbers: np.ndarray, pixels: np.ndarray, ignored: int):
        """One sample whose label is counted.

        Args:
            content: bytes of the image file.
            image: on the scale 0..255.
            numbers: that the label file holds, ascending.
            pixels: of each class, int64 `[K]`.
            ignored: pixels that do not count.
        """
        digest = int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")
        size, values = (image.shape[1], image.shape[0]), (float(image.min()), float(image.max()))
        return cls(size, digest, pixels, ignored, tuple(numbers[:257].tolist()), values)


@dataclass
class DatasetStatistics:
    """Sums over a dataset.

    Attributes:
        images: how many.
        pixels: labelled pixels of each class, `[K]`.
        images_with: images in which each class occurs, `[K]`.
        ignored: pixels that do not count.
        sizes: (width, height) -> images.
        stored: all numbers that occur in the label files.
        digests: of each image in the order of the dataset, uint64 `[N]`.
        values: least and greatest number of all images on the scale 0..255.
        multilabel: whether several classes may hold for one pixel; shares are then those of the pixels of all images.
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
        """The sums over shares of a dataset."""
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
        """Plain values."""
        sizes = [[*size, count] for size, count in self.sizes.items()]
        digests = base64.b64encode(self.digests.astype("<u8").tobytes()).decode()
        return {**vars(self), "sizes": sizes, "digests": digests}

    @classmethod
    def from_json(cls, values: dict) -> "DatasetStatistics":
        """What `to_json` gave.

        Raises:
            KeyError, TypeError, ValueError: it is something else.
        """
        sizes = {(width, height): count for width, height, count in values["sizes"]}
        digests = np.frombuffer(base64.b64decode(values["digests"], validate=True), "<u8")
        if len(digests) != values["images"]:
            raise ValueError("digests")
        return cls(**{**values, "sizes": sizes, "digests": digests})

    @property
    def labelled(self) -> int:
        """Pixels that count."""
        return sum(self.pixels)

    @property
    def _area(self) -> int:
        return sum(width * height * count for (width, height), count in self.sizes.items())

    @property
    def ignored_share(self) -> float:
        """Share of the pixels that do not count; of those of all masks where there are masks."""
        pixels = self._area * len(self.pixels) if self.multilabel else self.ignored + self.labelled
        return self.ignored / max(1, pixels)

    def shares(self) -> np.ndarray:
        """Share of each class, float64 `[K]`: of the labelled pixels, or of all pixels where there are masks."""
        return np.asarray(self.pixels, np.float64) / max(1, self._area if self.multilabel else self.labelled)

    def absent(self) -> list[int]:
        """Classes without a pixel."""
        return [i for i, count in enumerate(self.pixels) if count == 0]

    def rare(self) -> list[int]:
        """Classes with pixels, but fewer than one in a thousand."""
        return [i for i, share in enumerate(self.shares()) if 0 < share < RARE_SHARE]
