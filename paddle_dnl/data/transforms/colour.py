# SPDX-License-Identifier: Apache-2.0
"""Random colour augmentation. It is computed in 8 bits; the result has the dtype of the input image."""

from collections.abc import Sequence
from functools import partial

from paddle_dnl.data.transforms.randomness import numpy_random, python_random
from paddle_dnl.data.transforms.sample import keeps_type
from paddle_dnl.registry import TRANSFORMS

import cv2
import numpy as np
from PIL import Image, ImageEnhance


def _enhance(kind: type, image: Image.Image, factor: float) -> Image.Image:
    return kind(image).enhance(factor)


def _turn_hue(image: Image.Image, shift: float) -> Image.Image:
    """Rotates the hue of an RGB image by `shift` in Pillow's HSV units (256 are a full circle), rounded towards 0."""
    hue, saturation, value = image.convert("HSV").split()
    moved = np.trunc(np.arange(256) + shift).astype(int) % 256
    return Image.merge("HSV", (hue.point(moved.tolist()), saturation, value)).convert("RGB")


@TRANSFORMS.add_component
class RandomDistort:
    """Random brightness, contrast, saturation, hue and sharpness, in random order, as Pillow's `ImageEnhance` defines them.

    Args:
        brightness_range, contrast_range, saturation_range, sharpness_range: the factor is drawn from [1 - range, 1 + range].
        hue_range: the shift is drawn from [-range, range]; 256 are a full circle. Grey images have no hue.
        brightness_prob, contrast_prob, saturation_prob, hue_prob, sharpness_prob: probability that it is changed.
    """

    CHANNELS = (1, 3)

    def __init__(
        self,
        brightness_range: float = 0.5,
        brightness_prob: float = 0.5,
        contrast_range: float = 0.5,
        contrast_prob: float = 0.5,
        saturation_range: float = 0.5,
        saturation_prob: float = 0.5,
        hue_range: float = 18,
        hue_prob: float = 0.5,
        sharpness_range: float = 0.5,
        sharpness_prob: float = 0,
    ):
        # The order of this list, and of the draws below, is PaddleSeg's: equal seeds give equal images.
        self.steps = [
            (partial(_enhance, ImageEnhance.Brightness), 1, brightness_range, brightness_prob),
            (partial(_enhance, ImageEnhance.Contrast), 1, contrast_range, contrast_prob),
            (partial(_enhance, ImageEnhance.Color), 1, saturation_range, saturation_prob),
            (partial(_enhance, ImageEnhance.Sharpness), 1, sharpness_range, sharpness_prob),
            (_turn_hue, 0, hue_range, hue_prob),
        ]

    def __call__(self, data: dict) -> dict:
        steps = list(self.steps if data["img"].ndim == 3 else self.steps[:-1])
        python_random().shuffle(steps)
        image = Image.fromarray(np.clip(data["img"], 0, 255).astype(np.uint8))
        for change, middle, extent, probability in steps:
            if numpy_random().uniform(0, 1) < probability:
                image = change(image, numpy_random().uniform(middle - extent, middle + extent))
        data["img"] = keeps_type(data["img"], np.asarray(image))
        return data


@TRANSFORMS.add_component
class RandomBrightnessShift:
    """Adds a random integer from [-delta, delta] to all channels and clips to 0..255, with probability `prob`.

    Args:
        delta: largest change, for colours in 0..255.
        prob: probability that the image is changed.
    """

    def __init__(self, delta: int = 10, prob: float = 0.5):
        self.delta, self.prob = delta, prob

    def __call__(self, data: dict) -> dict:
        if python_random().random() < self.prob:
            shift = python_random().randint(-self.delta, self.delta)
            image = data["img"]
            data["img"] = keeps_type(image, np.clip(image.astype(np.float32) + np.float32(shift), 0, 255))
        return data


def _adjust(image: np.ndarray, factor: float = 1.0, shift: float = 0.0) -> np.ndarray:
    """factor * image + shift, clipped to uint8."""
    return np.clip(image.astype(np.float32) * factor + shift, 0, 255).astype(np.uint8)


@TRANSFORMS.add_component
class PhotoMetricDistortion:
    """Random brightness, contrast, saturation and hue, each with probability 1/2, in mmsegmentation 0.x's order and rounding.

    Contrast is changed before or after saturation and hue, at random. The image is rounded to 8 bits after each step.

    Args:
        brightness_delta: largest change, for colours in 0..255.
        contrast_range, saturation_range: [min, max] of the factor.
        hue_delta: largest change of OpenCV's hue, in units of 2 degrees.
    """

    CHANNELS = (3,)

    def __init__(
        self,
        brightness_delta: int = 32,
        contrast_range: Sequence[float] = (0.5, 1.5),
        saturation_range: Sequence[float] = (0.5, 1.5),
        hue_delta: int = 18,
    ):
        self.brightness_delta = brightness_delta
        self.contrast_range, self.saturation_range = tuple(contrast_range), tuple(saturation_range)
        self.hue_delta = hue_delta

    def __call__(self, data: dict) -> dict:
        image = np.clip(data["img"], 0, 255).astype(np.uint8)
        if numpy_random().randint(2):
            image = _adjust(image, shift=numpy_random().uniform(-self.brightness_delta, self.brightness_delta))
        contrast_first = numpy_random().randint(2) == 1
        if contrast_first:
            image = self._contrast(image)
        if numpy_random().randint(2):
            hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
            hsv[..., 1] = _adjust(hsv[..., 1], numpy_random().uniform(*self.saturation_range))
            image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
        if numpy_random().randint(2):
            turn = numpy_random().randint(-self.hue_delta, self.hue_delta)
            hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
            hsv[..., 0] = (hsv[..., 0].astype(int) + turn) % 180
            image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
        if not contrast_first:
            image = self._contrast(image)
        data["img"] = keeps_type(data["img"], image)
        return data

    def _contrast(self, image):
        return _adjust(image, numpy_random().uniform(*self.contrast_range)) if numpy_random().randint(2) else image
