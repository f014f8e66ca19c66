# SPDX-License-Identifier: Apache-2.0
"""Resize, pad and crop of a sample, shared by the transforms, and checks of their arguments.

A sample is a dict: `img` `[H, W, C]` (grey: `[H, W]`); `gt_fields`, the names of the arrays (labels) that are transformed
like the image; and `trans_info`, the sizes before each resize and padding, with which predictions are restored to the
original size.
"""

from paddle_dnl.data.images.resizing import resized
from paddle_dnl.errors import DataError

import cv2
import numpy as np

# 16,384 x 16,384: a float32 RGB image of this size takes 3 GiB. A configuration that asks for more is a mistake or an attack.
MAX_PIXELS = 1 << 28


def require_size(data: dict, width: float, height: float, what: str) -> None:
    """Refuses sizes of more than `MAX_PIXELS` pixels, unless the image itself is as large.

    Raises:
        DataError: names the operation (`what`) and the sizes.
    """
    rows, columns = data["img"].shape[:2]
    if not width * height <= max(MAX_PIXELS, rows * columns):
        raise DataError(
            f"transforms: {what} an image of {columns}x{rows} to {width:g}x{height:g} pixels, more than {MAX_PIXELS}; "
            "choose a smaller size"
        )


def size_pair(value, name: str) -> tuple[int, int]:
    """`value` as (width, height).

    Raises:
        ValueError: not two positive integers.
    """
    if not isinstance(value, list | tuple) or len(value) != 2 or not all(isinstance(v, int) and v > 0 for v in value):
        raise ValueError(f"{name} must be [width, height] in pixels, got {value!r}")
    if value[0] * value[1] > MAX_PIXELS:
        raise ValueError(f"{name} must be at most {MAX_PIXELS} pixels, got {value!r}")
    return tuple(value)


def length(value, name: str) -> int:
    """`value`, a length in pixels.

    Raises:
        ValueError: not a positive integer.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be a positive integer, got {value!r}")
    return value


def resize_arrays(data: dict, width: int, height: int, interpolation: int = cv2.INTER_LINEAR) -> dict:
    """Resizes the image, and the labels with nearest neighbour. A side that was rounded to 0 becomes 1 pixel."""
    require_size(data, width, height, "resizing")
    size = max(1, width), max(1, height)
    data["img"] = resized(data["img"], size, interpolation)
    for key in data.get("gt_fields", []):
        data[key] = cv2.resize(data[key], size, interpolation=cv2.INTER_NEAREST)
    return data


def resize(data: dict, width: int, height: int, interpolation: int = cv2.INTER_LINEAR) -> dict:
    """`resize_arrays`, which also appends the size before to `trans_info`."""
    data["trans_info"].append(("resize", data["img"].shape[:2]))
    return resize_arrays(data, width, height, interpolation)


def pad(data: dict, down: int, right: int, image_value, label_value: int, up: int = 0, left: int = 0) -> dict:
    """Pads the image and the labels.

    Args:
        data: the sample.
        down, right, up, left: pixels to add on each side.
        image_value: padding value of the image, one number or one per channel.
        label_value: padding value of the labels.
    """
    rows, columns = data["img"].shape[:2]
    require_size(data, columns + left + right, rows + up + down, "padding")
    sides = (up, down, left, right)
    data["img"] = _pad_image(data["img"], sides, image_value)
    for key in data.get("gt_fields", []):
        data[key] = _pad_image(data[key], sides, label_value)
    return data


def _pad_image(image: np.ndarray, sides: tuple[int, int, int, int], value) -> np.ndarray:
    channels = 1 if image.ndim == 2 else image.shape[2]
    values = tuple(value) if isinstance(value, list | tuple) else (value,) * max(3, channels)
    if channels <= 4:  # OpenCV's scalars have at most four numbers
        return cv2.copyMakeBorder(image, *sides, cv2.BORDER_CONSTANT, value=values)
    up, down, left, right = sides
    padded = np.empty((image.shape[0] + up + down, image.shape[1] + left + right, channels), image.dtype)
    rounded = np.rint(values) if image.dtype.kind == "u" else np.asarray(values)
    padded[:] = np.broadcast_to(rounded, (channels,)).astype(image.dtype)
    padded[up : up + image.shape[0], left : left + image.shape[1]] = image
    return padded


def crop(data: dict, top: int, left: int, height: int, width: int) -> dict:
    """Crops image and labels to a window; the results are views."""
    for key in ("img", *data.get("gt_fields", [])):
        data[key] = data[key][top : top + height, left : left + width]
    return data


def require_range(value, name: str) -> tuple[float, float]:
    """`value` as (min, max).

    Raises:
        ValueError: not two numbers with 0 < min <= max.
    """
    if len(value) != 2 or not 0 < value[0] <= value[1]:
        raise ValueError(f"{name} must be [min, max] with 0 < min <= max, got {value}")
    return tuple(value)


def keeps_type(image: np.ndarray, result: np.ndarray) -> np.ndarray:
    """`result` in the dtype of `image`, so that a pipeline stays in uint8 or in float32."""
    return result.astype(image.dtype, copy=False)
