# SPDX-License-Identifier: Apache-2.0
"""How the pictures of a model are read: number of channels and value range, set in the dataset and stored in deploy.yaml."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

from paddle_dnl.data.images.bands import scale
from paddle_dnl.data.images.image_files import EXTENSIONS
from paddle_dnl.data.images.reading import decode_image, read_bytes
from paddle_dnl.errors import DataError

import cv2
import numpy as np


def require_value_range(value, where: str = "value_range") -> tuple[float, float] | None:
    """`value` as (lo, hi); None stays None.

    Raises:
        DataError: not two finite numbers with lo < hi.
    """
    if value is None:
        return None
    fits = isinstance(value, list | tuple) and len(value) == 2
    if not fits or not all(type(v) in (int, float) and math.isfinite(v) for v in value) or not value[0] < value[1]:
        raise DataError(f"{where}: must be [LO, HI], two numbers with LO below HI; got {value!r}")
    return (float(value[0]), float(value[1]))


@dataclass(frozen=True)
class ImageFormat:
    """How picture files are read as arrays.

    Attributes:
        channels: 3 (BGR), 1 (`[H, W]`), or another number of bands, in the order of the file.
        value_range: stored values that become 0 and 255 (`paddle_dnl.data.images.bands.scale`); None: the range of the dtype,
            for 8 and 16 bits.
    """

    channels: int = 3
    value_range: tuple[float, float] | None = None

    @classmethod
    def of(cls, source) -> "ImageFormat":
        """The format of a dataset, or of its mapping in a configuration; by default three channels."""
        get = source.get if isinstance(source, dict) else lambda key, default: getattr(source, key, default)
        return cls(get("img_channels", 3), require_value_range(get("value_range", None)))

    def with_range(self, value_range) -> "ImageFormat":
        """The same format with another `value_range`, unless that is None.

        Raises:
            DataError: see `require_value_range`.
        """
        return self if value_range is None else replace(self, value_range=require_value_range(value_range))

    @property
    def endings(self) -> tuple[str, ...]:
        """Endings of picture files; includes .npy unless the format is that of 8-bit colour pictures."""
        plain = self.channels in (1, 3) and self.value_range is None
        return EXTENSIONS if plain else (*EXTENSIONS, ".npy")

    def read(self, path: str | Path, **limits) -> np.ndarray:
        """Reads a file as uint8, or as float32 on the scale 0..255: BGR `[H, W, 3]`, grey `[H, W]`, or bands `[H, W, C]`.

        Args:
            path: the file.
            limits: `max_pixels` and `whole` of `paddle_dnl.data.images.reading.decode_image`.

        Raises:
            DataError: the file is missing, damaged or no picture, or does not fit this format.
        """
        return self.decode(read_bytes(path), path, **limits)

    def decode(self, content: np.ndarray, path: str | Path, **limits) -> np.ndarray:
        """`read` for the content of a file, uint8; `path` is its name in errors."""
        return decode_image(content, path, self.channels, value_range=self.value_range, **limits)

    def of_array(self, image: np.ndarray, name: str = "image array") -> np.ndarray:
        """Converts an array of pixels to what `read` returns.

        Args:
            image: BGR `[H, W, 3]`, grey `[H, W]` or `[H, W, 1]`, or the model's bands `[H, W, C]`. Scaled to 0..255 unless it is
                uint8 and the format has no `value_range`.
            name: name of the array in errors.

        Raises:
            DataError: another shape, or a dtype that needs a `value_range`.
        """
        bands = image.shape[2] if image.ndim == 3 else 1
        if image.size == 0 or image.ndim not in (2, 3) or bands not in (1, 3, self.channels):
            raise DataError(
                f"{name}: must be [H, W, 3] (blue, green, red), [H, W] or [H, W, {self.channels}], got {list(image.shape)}"
            )
        if bands != self.channels and self.channels not in (1, 3):
            raise DataError(f"{name}: this model reads {self.channels} bands, got {list(image.shape)}")
        if image.dtype.kind not in "uif":
            raise DataError(f"{name}: holds {image.dtype}; a picture has whole numbers or floats")
        image = scale(image, self.value_range, name)
        if bands == 1:
            image = image.reshape(image.shape[:2])
            return image if self.channels == 1 else np.repeat(image[..., None], 3, axis=2)
        return cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_BGR2GRAY) if self.channels == 1 else image

    def blank(self, height: int, width: int) -> np.ndarray:
        """A black picture of this format."""
        return np.zeros((height, width) if self.channels == 1 else (height, width, self.channels), np.uint8)
