# SPDX-License-Identifier: Apache-2.0
"""Resizing to a fixed size, or to one that depends on the image's size."""

import copy
import math
from collections.abc import Sequence

from paddle_dnl.data.transforms.randomness import numpy_random, python_random
from paddle_dnl.data.transforms.sample import length, require_range, resize, size_pair
from paddle_dnl.errors import UsageError
from paddle_dnl.registry import TRANSFORMS

import cv2

_INTERPOLATIONS = {
    "NEAREST": cv2.INTER_NEAREST,
    "LINEAR": cv2.INTER_LINEAR,
    "CUBIC": cv2.INTER_CUBIC,
    "AREA": cv2.INTER_AREA,
    "LANCZOS4": cv2.INTER_LANCZOS4,
}


@TRANSFORMS.add_component
class Resize:
    """Resizes to `target_size`; with `keep_ratio`, to the largest size that fits into it without changing the aspect ratio.

    Args:
        target_size: [width, height]; with `keep_ratio` the larger number limits the long side, the smaller one the short side.
        keep_ratio: keep the aspect ratio.
        size_divisor: round width and height up to multiples of this number.
        interp: NEAREST, LINEAR, CUBIC, AREA or LANCZOS4 (OpenCV's interpolations), or RANDOM: one of them, drawn for each
            image. Labels are always resized with nearest neighbour.
    """

    def __init__(
        self,
        target_size: Sequence[int] = (512, 512),
        keep_ratio: bool = False,
        size_divisor: int | None = None,
        interp: str = "LINEAR",
    ):
        if interp != "RANDOM" and interp not in _INTERPOLATIONS:
            raise ValueError(f"interp must be RANDOM or one of {', '.join(_INTERPOLATIONS)}; got {interp!r}")
        if size_divisor is not None and (not isinstance(size_divisor, int) or size_divisor < 1):
            raise ValueError(f"size_divisor must be a positive integer, got {size_divisor!r}")
        self.target_size = size_pair(target_size, "target_size")
        self.keep_ratio, self.size_divisor, self.interp = keep_ratio, size_divisor, interp

    def __call__(self, data: dict) -> dict:
        name = python_random().choice(list(_INTERPOLATIONS)) if self.interp == "RANDOM" else self.interp
        width, height = self.target_size
        if self.keep_ratio:
            rows, columns = data["img"].shape[:2]
            factor = min(max(width, height) / max(rows, columns), min(width, height) / min(rows, columns))
            width, height = round(columns * factor), round(rows * factor)
        if self.size_divisor:
            width, height = (math.ceil(side / self.size_divisor) * self.size_divisor for side in (width, height))
        return resize(data, width, height, _INTERPOLATIONS[name])


def _resize_long_side(data: dict, long: int) -> dict:
    rows, columns = data["img"].shape[:2]
    factor = long / max(rows, columns)
    return resize(data, round(columns * factor), round(rows * factor))


@TRANSFORMS.add_component
class ResizeByLong:
    """Resizes the long side to `long_size`, keeping the aspect ratio.

    Args:
        long_size: length of the long side in pixels.
    """

    def __init__(self, long_size: int):
        self.long_size = length(long_size, "long_size")

    def __call__(self, data: dict) -> dict:
        return _resize_long_side(data, self.long_size)


@TRANSFORMS.add_component
class LimitLong:
    """Resizes images whose long side is above `max_long` or below `min_long` to that length, keeping the aspect ratio.

    Args:
        max_long: largest long side in pixels; null for no limit.
        min_long: smallest long side in pixels; null for no limit.
    """

    def __init__(self, max_long: int | None = None, min_long: int | None = None):
        for name, value in (("max_long", max_long), ("min_long", min_long)):
            if value is not None:
                length(value, name)
        if max_long is not None and min_long is not None and min_long > max_long:
            raise ValueError(f"min_long must not be above max_long, got {min_long} and {max_long}")
        self.max_long, self.min_long = max_long, min_long

    def __call__(self, data: dict) -> dict:
        long = max(data["img"].shape[:2])
        if self.max_long is not None and long > self.max_long:
            return _resize_long_side(data, self.max_long)
        if self.min_long is not None and long < self.min_long:
            return _resize_long_side(data, self.min_long)
        return data


@TRANSFORMS.add_component
class ResizeByShort:
    """Resizes the short side to `short_size`, or to less where the long side would exceed `max_size`; keeps the aspect ratio.

    Arguments as in PaddleSeg, whose own transform keeps a size that it reduced for one image for all later images.

    Args:
        short_size: length of the short side in pixels, or a list from which one is drawn for each image.
        max_size: largest long side in pixels.
    """

    def __init__(self, short_size: int | list[int], max_size: float = 1e10):
        sizes = list(short_size) if isinstance(short_size, list | tuple) else [short_size]
        self.short_sizes = [length(size, "short_size") for size in sizes]
        if not self.short_sizes or not max_size >= 1:
            raise ValueError(f"short_size and max_size must be lengths in pixels, got {short_size!r} and {max_size!r}")
        self.max_size = max_size

    def __call__(self, data: dict) -> dict:
        rows, columns = data["img"].shape[:2]
        short = python_random().choice(self.short_sizes) if len(self.short_sizes) > 1 else self.short_sizes[0]
        factor = min(short / min(rows, columns), self.max_size / max(rows, columns))
        return resize(data, int(round(columns * factor)), int(round(rows * factor)))


def fit_size(rows: int, columns: int, width: int, height: int) -> tuple[int, int]:
    """(width, height) of the largest size of the same aspect ratio whose long and short side fit those of the frame."""
    factor = min(max(width, height) / max(rows, columns), min(width, height) / min(rows, columns))
    return int(columns * factor + 0.5), int(rows * factor + 0.5)


@TRANSFORMS.add_component
class ResizeToFit:
    """Resizes to the largest size that fits into a frame, keeping the aspect ratio: mmsegmentation's `Resize(keep_ratio=True)`.

    Args:
        frame: [width, height]; the larger number limits the long side, the smaller one the short side.
        ratio_range: [min, max] of a random factor on the frame, for training.
    """

    def __init__(self, frame: Sequence[int], ratio_range: Sequence[float] | None = None):
        self.frame = size_pair(frame, "frame")
        self.ratio_range = None if ratio_range is None else require_range(ratio_range, "ratio_range")

    def __call__(self, data: dict) -> dict:
        width, height = self.frame
        if self.ratio_range is not None:
            low, high = self.ratio_range
            ratio = numpy_random().random_sample() * (high - low) + low
            width, height = int(width * ratio), int(height * ratio)
        return resize(data, *fit_size(*data["img"].shape[:2], width, height))

    def at_scale(self, scale: float) -> "ResizeToFit":
        """The same for a scaled frame, sides cut to whole pixels.

        Raises:
            UsageError: nothing is left of it.
        """
        width, height = self.frame
        scaled = copy.copy(self)
        scaled.frame = (int(width * scale), int(height * scale))
        if min(scaled.frame) < 1:
            raise UsageError(f"scale {scale}: nothing is left of the frame {width}x{height} of ResizeToFit")
        return scaled
