# SPDX-License-Identifier: Apache-2.0
"""Random scale and aspect ratio, for training."""

import math
from collections.abc import Sequence

from paddle_dnl.data.transforms.randomness import numpy_random, python_random
from paddle_dnl.data.transforms.sample import crop, require_range, resize, resize_arrays
from paddle_dnl.registry import TRANSFORMS

import numpy as np


@TRANSFORMS.add_component
class ResizeStepScaling:
    """Resizes by a random factor.

    Args:
        min_scale_factor, max_scale_factor: smallest and largest factor.
        scale_step_size: step between the factors to choose from; 0 draws from the whole range.
    """

    def __init__(self, min_scale_factor: float = 0.75, max_scale_factor: float = 1.25, scale_step_size: float = 0.25):
        require_range((min_scale_factor, max_scale_factor), "[min_scale_factor, max_scale_factor]")
        if scale_step_size < 0:
            raise ValueError(f"scale_step_size must be a number from 0, got {scale_step_size}")
        self.low, self.high = min_scale_factor, max_scale_factor
        self.steps = None
        if scale_step_size and self.low != self.high:
            count = int((self.high - self.low) / scale_step_size + 1)
            self.steps = np.linspace(self.low, self.high, count).tolist()

    def __call__(self, data: dict) -> dict:
        if self.low == self.high:
            factor = self.low
        elif self.steps is None:
            factor = numpy_random().uniform(self.low, self.high)
        else:
            # PaddleSeg shuffles too, in place of drawing one: equal seeds give equal factors.
            factors = list(self.steps)
            numpy_random().shuffle(factors)
            factor = factors[0]
        rows, columns = data["img"].shape[:2]
        return resize_arrays(data, round(factor * columns), round(factor * rows))


@TRANSFORMS.add_component
class ResizeRangeScaling:
    """Resizes the long side to a random length, keeping the aspect ratio.

    Args:
        min_value, max_value: smallest and largest length in pixels.
    """

    def __init__(self, min_value: int = 400, max_value: int = 600):
        self.low, self.high = require_range((min_value, max_value), "[min_value, max_value]")

    def __call__(self, data: dict) -> dict:
        length = self.high if self.low == self.high else int(numpy_random().uniform(self.low, self.high) + 0.5)
        rows, columns = data["img"].shape[:2]
        factor = length / max(rows, columns)
        return resize_arrays(data, round(columns * factor), round(rows * factor))


@TRANSFORMS.add_component
class RandomScaleAspect:
    """Random scale and aspect ratio, as in PaddleSeg, or with `scale_range` or `aspect_range` as the DNL authors do it.

    PaddleSeg's crops a random window and resizes it to the size of the image; the authors' multiplies width and height by
    s * sqrt(a) and s / sqrt(a). Source: https://github.com/yinmh17/DNL-Semantic-Segmentation.

    Args:
        min_scale: PaddleSeg's: smallest area of the window as a share of the image's. Not together with the ranges.
        aspect_ratio: PaddleSeg's: smallest aspect ratio of the window; the largest is 1 / aspect_ratio. Not together with
            the ranges.
        scale_range: [min, max] of the factor s; [0.5, 2.0] if only `aspect_range` is given.
        aspect_range: [min, max] of the factor a; [0.9, 1.1] if only `scale_range` is given.
    """

    def __init__(
        self,
        min_scale: float = 0.5,
        aspect_ratio: float = 0.33,
        scale_range: Sequence[float] | None = None,
        aspect_range: Sequence[float] | None = None,
    ):
        self.resizes = scale_range is not None or aspect_range is not None
        if self.resizes and (min_scale, aspect_ratio) != (0.5, 0.33):
            raise ValueError("min_scale and aspect_ratio do not go together with scale_range and aspect_range")
        self.min_scale, self.aspect_ratio = min_scale, aspect_ratio
        self.scale_range = require_range((0.5, 2.0) if scale_range is None else scale_range, "scale_range")
        self.aspect_range = require_range((0.9, 1.1) if aspect_range is None else aspect_range, "aspect_range")

    def __call__(self, data: dict) -> dict:
        rows, columns = data["img"].shape[:2]
        if self.resizes:
            scale, aspect = python_random().uniform(*self.scale_range), python_random().uniform(*self.aspect_range)
            return resize(data, int(columns * scale * math.sqrt(aspect)), int(rows * scale / math.sqrt(aspect)))
        # A random window, resized to the size of the image; the image itself if none of ten windows fits into it.
        for _ in range(10 if self.min_scale and self.aspect_ratio else 0):
            area = rows * columns * numpy_random().uniform(self.min_scale, 1.0)
            aspect = numpy_random().uniform(self.aspect_ratio, 1.0 / self.aspect_ratio)
            width, height = int(math.sqrt(area * aspect)), int(math.sqrt(area / aspect))
            if numpy_random().randint(10) < 5:
                width, height = height, width
            if height < rows and width < columns:
                top = numpy_random().randint(0, rows - height)
                left = numpy_random().randint(0, columns - width)
                return resize_arrays(crop(data, top, left, height, width), columns, rows)
        return data
