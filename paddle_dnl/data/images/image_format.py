# SPDX-License-Identifier: Apache-2.0
"""How a model's pictures are read: number of bands and scale, given once in the dataset and kept in deploy.yaml."""

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
from paddle_dnl.data.images.reading import read_bytes
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
    """How picture files become arrays.

    Attributes:
        channels: 3 (arrays are BGR), 1 (`[H, W]`), or any other number of bands, in the order of the file.
        value_range: the stored numbers that become 0 and 255 (`paddle_dnl.data.images.bands.scale`); None for 8 and 16 bits.
    """

    channels: int = 3
    value_range: tuple[float, float] | None = None

    @classmethod
    def of(cls, source) -> "ImageFormat":
        """Of a dataset, of the mapping that configures one, or of a `DeployConfig`; three channels where it says nothing."""
        get = source.get if isinstance(source, dict) else lambda key, default: getattr(source, key, default)
        return cls(get("img_channels", 3), require_value_range(get("value_range", None)))

    def with_range(self, value_range) -> "ImageFormat":
        """The same with another `value_range`, where one is given.

        Raises:
            DataError: see `require_value_range`.
        """
        return self if value_range is None else replace(self, value_range=require_value_range(value_range))

    @property
    def endings(self) -> tuple[str, ...]:
        """Of picture files in a folder; .npy only where colour pictures of 8 bits are not what is meant."""
        plain = self.channels in (1, 3) and self.value_range is None
        return EXTENSIONS if plain else (*EXTENSIONS, ".npy")

    def read(self, path: str | Path, **limits) -> np.ndarray:
        """A file as uint8, or as float32 on the scale 0..255: BGR `[H, W, 3]`, grey `[H, W]`, or bands `[H, W, C]`.

        Args:
            path: the file.
            limits: `max_pixels` and `whole` of `decode_image`.

        Raises:
            DataError: missing, damaged, no picture, or of other bands or numbers than the format's.
        """
        return self.decode(read_bytes(path), path, **limits)

    def decode(self, content: np.ndarray, path: str | Path, **limits) -> np.ndarray:
        """`read` for the content of a file, uint8, which errors call `path`."""
        return decode_image(content, path, self.channels, value_range=self.value_range, **limits)

    def of_array(self, image: np.ndarray, name: str = "image array") -> np.ndarray:
        """An array of pixels as `read` would give it.

        Args:
            image: BGR `[H, W, 3]`, grey `[H, W]` or `[H, W, 1]`, or the model's bands `[H, W, C]`; numbers other than uint8,
                and with a `value_range` all numbers, are brought to its scale.
            name: how errors call it.

        Raises:
            DataError: another shape, or numbers without a scale.
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


def _start_of_scan(data: bytes) -> int:
    """Where a JPEG's picture data begin, after its head; the head may hold a whole small JPEG of its own."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        at += 1 if data[at + 1] == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return at


def decode_image(
    content: np.ndarray,
    path: str | Path,
    channels: int = 3,
    *,
    value_range: tuple[float, float] | None = None,
    max_pixels: int | None = None,
    whole: bool = False,
) -> np.ndarray:
    """An image as uint8, BGR `[H, W, 3]` or grey `[H, W]` for one channel; other numbers of bands as `[H, W, C]`.

    EXIF orientation is applied, alpha is dropped from colours, CMYK and palettes become colours. 16 bits become 8 by 65535 ->
    255, which is said once; with `value_range`, or with other numbers of bands than 1 and 3, no bits are lost.

    Args:
        content: of the file, uint8 with at least one byte.
        path: how errors call it.
        channels: 3, 1, or another number of bands, of a .npy file, TIFF or PNG.
        value_range: stored numbers that become 0 and 255; the image is then float32, see `paddle_dnl.data.images.bands.scale`.
        max_pixels: for pictures of strangers: only the formats and structures that `paddle_dnl.data.images.untrusted` allows, and
            no larger ones; checked before decoding.
        whole: refuse JPEGs that are cut off, of which OpenCV makes a picture with a grey rest.

    Raises:
        DataError: damaged, too large, no image, or with numbers whose scale is not known.
    """
    plain = channels in (1, 3) and value_range is None
    if is_npy(content) or (is_tiff(content) and not plain):
        image = scale(read_array(content, path, channels, max_pixels), value_range, path)
        return np.ascontiguousarray(image[..., ::-1]) if channels == 3 else image
    data = content.tobytes() if whole or max_pixels is not None else b""
    try:
        size = None if max_pixels is None else require_bounded(data, str(path), max_pixels)
    except UnknownFormat as error:
        # Pillow, which reads the header, knows no TIFF of floats with several bands.
        if is_tiff(content):
            raise DataError(f"{path}: {_NO_PLAIN_TIFF}") from error
        raise
    if whole:
        # A cheap form of `require_whole`: the mark of the end must follow the start of the picture's data
        if data[:2] == b"\xff\xd8" and data.find(b"\xff\xd9", _start_of_scan(data)) < 0:
            raise DataError(f"{path}: is a damaged JPEG (it ends before the picture does)")
    if is_bigtiff(content):  # which OpenCV does not read
        image = read_array(content, path, channels, max_pixels)
        if channels == 3:
            image = image[..., ::-1]
        if image.dtype == np.uint16:
            image = as_eight_bits(image, path)
        return np.ascontiguousarray(scale(image, None, path))
    image = _decode(content, path, channels)
    # The orientation in the EXIF header may exchange the sides.
    if size is not None and sorted(image.shape[:2]) != sorted(size):
        raise DataError(
            f"{path}: is {image.shape[1]}x{image.shape[0]} after decoding, its header says {size[0]}x{size[1]}"
        )
    if plain and image.dtype == np.uint16:
        say_sixteen_bits(path, image)
        return _decode(content, path, channels, cv2.IMREAD_COLOR if channels == 3 else cv2.IMREAD_GRAYSCALE)
    return scale(image, value_range, path)


def _decode(content: np.ndarray, path: str | Path, channels: int, flag: int | None = None) -> np.ndarray:
    """A picture file by OpenCV, in its own depth unless `flag` says otherwise."""
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
    """A picture file in its own numbers and bands, to see what it is: `[H, W]` or `[H, W, C]`.

    Raises:
        DataError: missing, damaged or no picture.
    """
    content = read_bytes(path)
    if is_npy(content) or (is_tiff(content) and importlib.util.find_spec("tifffile") is not None):
        return bands.read_as_stored(content, path)
    grey_or_colour = _decode(content, path, 3)  # turned as EXIF says
    stored = cv2.imdecode(content, cv2.IMREAD_UNCHANGED)
    return grey_or_colour[..., 0] if stored is not None and stored.ndim == 2 else grey_or_colour
