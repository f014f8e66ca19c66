"""Transforms that paddleseg lacks, or whose own versions change the wrong thing.

All work on a sample's dict: `img` `[H, W, C]` float32 in 0..255, RGB until a transform says otherwise; the arrays named in
`gt_fields` follow the image; `trans_info` notes sizes so that predictions can be taken back. Randomness comes from `random`
and `numpy.random`, which training seeds for each sample. (width, height) order in arguments, as in PaddleSeg.
"""

import math
import random
from collections.abc import Sequence

from paddle_dnl.registry import TRANSFORMS

import cv2
import numpy as np
from paddleseg.transforms import RandomScaleAspect as PaddleSegScaleAspect


def _pair(value, name: str) -> tuple[int, int]:
    if not isinstance(value, list | tuple) or len(value) != 2 or not all(isinstance(v, int) and v > 0 for v in value):
        raise ValueError(f"{name} must be [width, height] in pixels, got {value!r}")
    return tuple(value)


def _resize(data: dict, width: int, height: int) -> dict:
    """Resizes image (bilinear) and labels (nearest), and notes the size before.

    A side that rounds to 0, as of a thin picture made much smaller, becomes 1.
    """
    width, height = max(1, width), max(1, height)
    data["trans_info"].append(("resize", data["img"].shape[:2]))
    data["img"] = cv2.resize(data["img"], (width, height), interpolation=cv2.INTER_LINEAR)
    for key in data.get("gt_fields", []):
        data[key] = cv2.resize(data[key], (width, height), interpolation=cv2.INTER_NEAREST)
    return data


def _crop(data: dict, top: int, left: int, height: int, width: int) -> dict:
    for key in ("img", *data.get("gt_fields", [])):
        data[key] = data[key][top : top + height, left : left + width]
    return data


class _CategoryCrop:
    """A random window in which no class fills more than its share of the labelled pixels.

    Up to `loop_times` windows are tried and the last one is taken, as mmsegmentation does.
    """

    def __init__(self, crop_size, category_max_ratio, ignore_index, loop_times):
        self.width, self.height = _pair(crop_size, "crop_size")
        if not 0 < category_max_ratio <= 1:
            raise ValueError(f"category_max_ratio must be in (0, 1], got {category_max_ratio}")
        if loop_times < 1:
            raise ValueError(f"loop_times must be at least 1, got {loop_times}")
        self.category_max_ratio = category_max_ratio
        self.ignore_index = ignore_index
        self.loop_times = loop_times

    def _window(self, shape) -> tuple[int, int]:
        top = np.random.randint(0, max(shape[0] - self.height, 0) + 1)
        left = np.random.randint(0, max(shape[1] - self.width, 0) + 1)
        return top, left

    def _mixed(self, label: np.ndarray) -> bool:
        values, counts = np.unique(label, return_counts=True)
        counts = counts[values != self.ignore_index]
        return len(counts) > 1 and counts.max() / counts.sum() < self.category_max_ratio

    def crop(self, data: dict) -> dict:
        """Crops to the window size, or to the whole side where the image is smaller."""
        shape = data["img"].shape
        top, left = self._window(shape)
        if self.category_max_ratio < 1:
            for _ in range(self.loop_times):
                if self._mixed(data["label"][top : top + self.height, left : left + self.width]):
                    break
                top, left = self._window(shape)
        return _crop(data, top, left, self.height, self.width)


@TRANSFORMS.add_component
class RandomPaddingCrop(_CategoryCrop):
    """A random window; smaller images are padded at the right and bottom first.

    PaddleSeg's arguments; unlike its own, `category_max_ratio` < 1 crops the image and not the label into the image.

    Args:
        crop_size: [width, height].
        im_padding_value: one number, or one per channel.
        label_padding_value: for padded labels.
        category_max_ratio: see `RandomCrop`.
        ignore_index: label that does not count for it.
        loop_times: windows to try.
    """

    def __init__(
        self,
        crop_size: Sequence[int] = (512, 512),
        im_padding_value=127.5,
        label_padding_value: int = 255,
        category_max_ratio: float = 1.0,
        ignore_index: int = 255,
        loop_times: int = 10,
    ):
        super().__init__(crop_size, category_max_ratio, ignore_index, loop_times)
        self.im_padding_value = im_padding_value
        self.label_padding_value = label_padding_value

    def __call__(self, data: dict) -> dict:
        rows, columns = data["img"].shape[:2]
        down, right = max(self.height - rows, 0), max(self.width - columns, 0)
        if down or right:
            value = self.im_padding_value
            value = tuple(value) if isinstance(value, list | tuple) else (value,) * 3
            data["img"] = cv2.copyMakeBorder(data["img"], 0, down, 0, right, cv2.BORDER_CONSTANT, value=value)
            for key in data.get("gt_fields", []):
                data[key] = cv2.copyMakeBorder(
                    data[key], 0, down, 0, right, cv2.BORDER_CONSTANT, value=self.label_padding_value
                )
        return self.crop(data)


@TRANSFORMS.add_component
class RandomCrop(_CategoryCrop):
    """A random window without padding: mmsegmentation's crop, which pads after normalising (PaddleSeg's `Padding` then).

    Args:
        crop_size: [width, height].
        category_max_ratio: no class may fill this share of the window's labelled pixels; 1 allows all.
        ignore_index: label that does not count for it.
        loop_times: windows to try.
    """

    def __init__(
        self,
        crop_size: Sequence[int],
        category_max_ratio: float = 1.0,
        ignore_index: int = 255,
        loop_times: int = 10,
    ):
        super().__init__(crop_size, category_max_ratio, ignore_index, loop_times)

    def __call__(self, data: dict) -> dict:
        return self.crop(data)


def _fit(rows: int, columns: int, width: int, height: int) -> tuple[int, int]:
    """(width, height) of the largest picture of the same shape with sides within long and short side of the frame."""
    factor = min(max(width, height) / max(rows, columns), min(width, height) / min(rows, columns))
    return int(columns * factor + 0.5), int(rows * factor + 0.5)


@TRANSFORMS.add_component
class ResizeToFit:
    """Resizes to fit a frame, keeping the shape: mmsegmentation's `Resize(keep_ratio=True)`.

    Args:
        frame: [width, height]; the long side of the image goes with its longer one.
        ratio_range: training: a random factor on the frame, [min, max].
    """

    def __init__(self, frame: Sequence[int], ratio_range: Sequence[float] | None = None):
        self.frame = _pair(frame, "frame")
        if ratio_range is not None and not 0 < ratio_range[0] <= ratio_range[1]:
            raise ValueError(f"ratio_range must be [min, max] with 0 < min <= max, got {ratio_range}")
        self.ratio_range = ratio_range

    def __call__(self, data: dict) -> dict:
        width, height = self.frame
        if self.ratio_range is not None:
            low, high = self.ratio_range
            ratio = np.random.random_sample() * (high - low) + low
            width, height = int(width * ratio), int(height * ratio)
        return _resize(data, *_fit(*data["img"].shape[:2], width, height))


@TRANSFORMS.add_component
class ResizeByShort:
    """Resizes so that the short side has a given length, unless the long side would exceed another.

    PaddleSeg's arguments; unlike its own, one image does not change the rule for those that follow.

    Args:
        short_size: pixels; of a list one is drawn for each image.
        max_size: longest allowed long side.
    """

    def __init__(self, short_size: int | list[int], max_size: float = 1e10):
        self.short_sizes = list(short_size) if isinstance(short_size, list | tuple) else [short_size]
        self.max_size = max_size

    def __call__(self, data: dict) -> dict:
        rows, columns = data["img"].shape[:2]
        short = random.choice(self.short_sizes) if len(self.short_sizes) > 1 else self.short_sizes[0]
        factor = min(short / min(rows, columns), self.max_size / max(rows, columns))
        return _resize(data, int(round(columns * factor)), int(round(rows * factor)))


@TRANSFORMS.add_component
class RandomScaleAspect(PaddleSegScaleAspect):
    """With `scale_range` or `aspect_range`: a random scale with a random change of shape, as the DNL authors train.

    Without them it is PaddleSeg's transform of this name (a random part of the image, resized to the whole), so that its
    configurations keep their meaning.

    Source: https://github.com/yinmh17/DNL-Semantic-Segmentation, whose widths and heights are scaled by
    s * sqrt(a) and s / sqrt(a).

    Args:
        min_scale, aspect_ratio: PaddleSeg's; not together with the ranges.
        scale_range: [min, max] of the factor s on both sides; [0.5, 2.0] if only `aspect_range` is given.
        aspect_range: [min, max] of the factor a on width over height; [0.9, 1.1] if only `scale_range` is given.
    """

    def __init__(
        self,
        min_scale: float = 0.5,
        aspect_ratio: float = 0.33,
        scale_range: Sequence[float] | None = None,
        aspect_range: Sequence[float] | None = None,
    ):
        super().__init__(min_scale, aspect_ratio)
        self.resizes = scale_range is not None or aspect_range is not None
        if self.resizes and (min_scale, aspect_ratio) != (0.5, 0.33):
            raise ValueError("min_scale and aspect_ratio do not go together with scale_range and aspect_range")
        self.scale_range = tuple((0.5, 2.0) if scale_range is None else scale_range)
        self.aspect_range = tuple((0.9, 1.1) if aspect_range is None else aspect_range)
        for name, value in (("scale_range", self.scale_range), ("aspect_range", self.aspect_range)):
            if len(value) != 2 or not 0 < value[0] <= value[1]:
                raise ValueError(f"{name} must be [min, max] with 0 < min <= max, got {value}")

    def __call__(self, data: dict) -> dict:
        if not self.resizes:
            return super().__call__(data)
        scale, aspect = random.uniform(*self.scale_range), random.uniform(*self.aspect_range)
        rows, columns = data["img"].shape[:2]
        return _resize(data, int(columns * scale * math.sqrt(aspect)), int(rows * scale / math.sqrt(aspect)))


@TRANSFORMS.add_component
class RandomBrightnessShift:
    """Adds one random integer in [-delta, delta] to all channels and clips, with probability `prob`.

    Args:
        delta: largest shift, in 0..255 units.
        prob: how often.
    """

    def __init__(self, delta: int = 10, prob: float = 0.5):
        self.delta, self.prob = delta, prob

    def __call__(self, data: dict) -> dict:
        if random.random() < self.prob:
            shift = random.randint(-self.delta, self.delta)
            data["img"] = np.clip(data["img"] + shift, 0, 255).astype(np.float32)
        return data


def _adjust(image: np.ndarray, factor: float = 1.0, shift: float = 0.0) -> np.ndarray:
    """factor * image + shift, clipped to uint8."""
    return np.clip(image.astype(np.float32) * factor + shift, 0, 255).astype(np.uint8)


@TRANSFORMS.add_component
class PhotoMetricDistortion:
    """Random brightness, contrast, saturation and hue, each with probability 1/2, in mmsegmentation 0.x's order and rounding.

    Contrast comes before or after the other two, by chance. The image is rounded to 8 bits at each step.

    Args:
        brightness_delta: largest shift, in 0..255 units.
        contrast_range, saturation_range: [min, max] factors.
        hue_delta: largest shift, in OpenCV's half degrees.
    """

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
        if np.random.randint(2):
            image = _adjust(image, shift=np.random.uniform(-self.brightness_delta, self.brightness_delta))
        contrast_first = np.random.randint(2) == 1
        if contrast_first:
            image = self._contrast(image)
        image = self._colour(image)
        if not contrast_first:
            image = self._contrast(image)
        data["img"] = image.astype(np.float32)
        return data

    def _contrast(self, image):
        return _adjust(image, np.random.uniform(*self.contrast_range)) if np.random.randint(2) else image

    def _colour(self, image):
        if np.random.randint(2):
            hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
            hsv[..., 1] = _adjust(hsv[..., 1], np.random.uniform(*self.saturation_range))
            image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
        if np.random.randint(2):
            turn = np.random.randint(-self.hue_delta, self.hue_delta)
            hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
            hsv[..., 0] = (hsv[..., 0].astype(int) + turn) % 180
            image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
        return image


@TRANSFORMS.add_component
class SubtractMeanBGR:
    """Turns RGB into BGR and subtracts a mean in 0..255 units, nothing else: the input of the DNL authors' networks.

    Args:
        mean: blue, green, red.
    """

    def __init__(self, mean: Sequence[float] = (102.9801, 115.9465, 122.7717)):
        if len(mean) != 3:
            raise ValueError(f"mean must have three numbers, got {mean}")
        self.mean = np.array(mean, np.float32)

    def __call__(self, data: dict) -> dict:
        data["img"] = data["img"].astype(np.float32)[..., ::-1] - self.mean
        return data
