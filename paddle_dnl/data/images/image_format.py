# SPDX-License-Identifier: Apache-2.0
"""How the pictures of a model are read: number of channels and value range, set in the dataset and stored in deploy.yaml."""

import importlib.util
from dataclasses import dataclass, replace
from pathlib import Path

from paddle_dnl.data.images import bands
from paddle_dnl.data.images.bands import (
    as_eight_bits,
    is_bigtiff,
    is_npy,
    is_tiff,
    read_array,
    require_value_range,
    say_sixteen_bits,
    scale,
)
from paddle_dnl.data.images.image_files import EXTENSIONS
from paddle_dnl.data.images.reading import read_bytes, require_whole
from paddle_dnl.data.images.untrusted import UnknownFormat, require_bounded
from paddle_dnl.errors import DataError

import cv2
import numpy as np

_NO_PLAIN_TIFF = (
    "is not a TIFF of 8 or 16 bits with one, three or four bands, or it is damaged; others are read with value_range [LO, HI] "
    "and img_channels in the dataset (--value_range LO HI)"
)


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
        """The format of a dataset, its mapping in a configuration, or a `DeployConfig`; by default three channels."""
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
        return EXTENSIONS if self.is_plain else (*EXTENSIONS, ".npy")

    @property
    def is_plain(self) -> bool:
        """Whether pictures are colours or grey of 8 bits, or of 16 that become 8."""
        return self.channels in (1, 3) and self.value_range is None

    def read(self, path: str | Path, **limits) -> np.ndarray:
        """Reads a file as uint8, or as float32 on the scale 0..255: BGR `[H, W, 3]`, grey `[H, W]`, or bands `[H, W, C]`.

        Args:
            path: the file.
            limits: `max_pixels` of `decode_image`.

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
        count = image.shape[2] if image.ndim == 3 else 1
        if image.size == 0 or image.ndim not in (2, 3) or count not in (1, 3, self.channels):
            raise DataError(
                f"{name}: must be [H, W, 3] (blue, green, red), [H, W] or [H, W, {self.channels}], got {list(image.shape)}"
            )
        if count != self.channels and self.channels not in (1, 3):
            raise DataError(f"{name}: this model reads {self.channels} bands, got {list(image.shape)}")
        if image.dtype.kind not in "uif":
            raise DataError(f"{name}: holds {image.dtype}; a picture has whole numbers or floats")
        image = scale(image, self.value_range, name)
        if count == 1:
            image = image.reshape(image.shape[:2])
            return image if self.channels == 1 else np.repeat(image[..., None], 3, axis=2)
        return cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_BGR2GRAY) if self.channels == 1 else image

    def blank(self, height: int, width: int) -> np.ndarray:
        """A black picture of this format."""
        return np.zeros((height, width) if self.channels == 1 else (height, width, self.channels), np.uint8)


def decode_image(
    content: np.ndarray,
    path: str | Path,
    channels: int = 3,
    *,
    value_range: tuple[float, float] | None = None,
    max_pixels: int | None = None,
) -> np.ndarray:
    """Decodes an image as uint8: BGR `[H, W, 3]`, grey `[H, W]` for one channel, or `[H, W, C]` for other numbers of bands.

    The EXIF orientation is applied, alpha is dropped, and CMYK and palette pictures are converted to colours. 16 bits are
    reduced to 8 (65535 becomes 255), which is logged once. With `value_range`, or other numbers of bands than 1 and 3, the
    full precision is kept.

    Args:
        content: content of the file, uint8 with at least one byte.
        path: name of the file in errors.
        channels: 3, 1, or another number of bands (.npy, TIFF and PNG files).
        value_range: stored values that become 0 and 255; the image is then float32, see `paddle_dnl.data.images.bands.scale`.
        max_pixels: for untrusted files: allow only the formats and structures of `paddle_dnl.data.images.untrusted`, and at
            most this number of pixels; checked before decoding.

    Raises:
        DataError: the file is damaged or truncated, too large or no image, or has a dtype that needs a `value_range`.
    """
    plain = channels in (1, 3) and value_range is None
    if is_npy(content) or (is_tiff(content) and not plain):
        image = scale(read_array(content, path, channels, max_pixels), value_range, path)
        return np.ascontiguousarray(image[..., ::-1]) if channels == 3 else image
    try:
        size = None if max_pixels is None else require_bounded(content.tobytes(), str(path), max_pixels)
    except UnknownFormat as error:
        # The header is read with Pillow, which does not know float TIFFs with several bands.
        if is_tiff(content):
            raise DataError(f"{path}: {_NO_PLAIN_TIFF}") from error
        raise
    if is_bigtiff(content):  # OpenCV does not read these
        image = read_array(content, path, channels, max_pixels)
        if channels == 3:
            image = image[..., ::-1]
        if image.dtype == np.uint16:
            image = as_eight_bits(image, path)
        return np.ascontiguousarray(scale(image, None, path))
    image = _decode(content, path, channels)
    # The EXIF orientation may swap width and height.
    if size is not None and sorted(image.shape[:2]) != sorted(size):
        raise DataError(
            f"{path}: is {image.shape[1]}x{image.shape[0]} after decoding, its header says {size[0]}x{size[1]}"
        )
    if plain and image.dtype == np.uint16:
        say_sixteen_bits(path, image)
        return _decode(content, path, channels, cv2.IMREAD_COLOR if channels == 3 else cv2.IMREAD_GRAYSCALE)
    return scale(image, value_range, path)


def _decode(content: np.ndarray, path: str | Path, channels: int, flag: int | None = None) -> np.ndarray:
    """Decodes a picture file with OpenCV, at its own depth unless `flag` is given; refuses truncated files."""
    require_whole(content, path)
    if flag is None:
        kinds = {1: cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH, 3: cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH}
        flag = kinds.get(channels, cv2.IMREAD_UNCHANGED)
    try:
        image = cv2.imdecode(content, flag)
    except cv2.error as error:
        raise DataError(f"{path}: cannot be decoded ({str(error).strip().splitlines()[-1]})") from error
    if image is None and is_tiff(content):
        raise DataError(f"{path}: {_NO_PLAIN_TIFF}")
    if image is None:
        raise DataError(f"{path}: is not a readable image; it may be damaged or of an unknown format")
    found = 1 if image.ndim == 2 else image.shape[2]
    if found != channels:
        raise DataError(f"{path}: has {found} bands, expected {channels} (img_channels)")
    return cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA) if channels == 4 else image


def read_as_stored(path: str | Path) -> np.ndarray:
    """Reads a picture with its own dtype and number of bands, without scaling: `[H, W]` or `[H, W, C]`.

    Raises:
        DataError: the file is missing, damaged or no picture.
    """
    content = read_bytes(path)
    if is_npy(content) or (is_tiff(content) and importlib.util.find_spec("tifffile") is not None):
        return bands.read_as_stored(content, path)
    grey_or_colour = _decode(content, path, 3)  # with EXIF orientation
    stored = cv2.imdecode(content, cv2.IMREAD_UNCHANGED)
    return grey_or_colour[..., 0] if stored is not None and stored.ndim == 2 else grey_or_colour
