# SPDX-License-Identifier: Apache-2.0
"""Drawing of label maps: colour pictures, overlays and palette PNGs."""

import io
from pathlib import Path

from paddle_dnl.data.classes import BACKGROUND_COLOR, Colors, label_palette
from paddle_dnl.files.atomic import write_bytes

import cv2
import numpy as np
from PIL import Image


def as_label(numbers: np.ndarray) -> np.ndarray:
    """Class numbers as uint8, or as uint16 if a number is above 255."""
    return numbers.astype(np.uint16 if numbers.size and numbers.max() > 255 else np.uint8)


def colorize(label: np.ndarray, colors: Colors) -> np.ndarray:
    """Label map `[H, W]` to an RGB picture `[H, W, 3]`, uint8.

    Args:
        label: class numbers, uint8 or uint16.
        colors: (red, green, blue) of each class.
    """
    return label_palette(colors, 256 if label.dtype == np.uint8 else 1 << 16)[label]


def displayed(image: np.ndarray) -> np.ndarray:
    """A picture of any `ImageFormat` for display, BGR uint8 `[H, W, 3]`, clipped to 0..255.

    Of pictures with two bands the first is shown as grey; of those with four or more the first three as red, green and blue.

    Args:
        image: as from `paddle_dnl.data.images.image_format.ImageFormat.read`.
    """
    if image.ndim == 3 and image.shape[2] not in (1, 3):
        image = image[..., 2::-1] if image.shape[2] > 3 else image[..., 0]
    if image.dtype != np.uint8:
        image = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    if image.ndim == 2 or image.shape[2] == 1:
        return cv2.cvtColor(image.reshape(image.shape[:2]), cv2.COLOR_GRAY2BGR)
    return np.ascontiguousarray(image)


def overlay_masks(image_bgr: np.ndarray, masks: np.ndarray, colors: Colors, weight: float = 0.6) -> np.ndarray:
    """The picture with all masks drawn over it, with outlines; BGR `[H, W, 3]`, uint8. Pixels without a mask are unchanged.

    Args:
        image_bgr: `[H, W, 3]`, or any input of `displayed`.
        masks: `[K, H, W]`, 0 or 1.
        colors: (red, green, blue) of each mask.
        weight: weight of the picture; the mask's colour has 1 - weight.
    """
    mixed = displayed(image_bgr).copy()
    for mask, color in zip(masks.astype(np.uint8), colors, strict=False):
        inside, bgr = mask.astype(bool), tuple(map(int, color[::-1]))
        mixed[inside] = np.rint(weight * mixed[inside] + (1 - weight) * np.array(bgr)).astype(np.uint8)
        contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        cv2.drawContours(mixed, contours, -1, bgr, 1)
    return mixed


def overlay(image_bgr: np.ndarray, label: np.ndarray, colors: Colors, weight: float = 0.6) -> np.ndarray:
    """The picture blended with the class colours, BGR `[H, W, 3]`, uint8.

    If class 0 is black, it is taken for background, and its pixels are unchanged.

    Args:
        image_bgr: `[H, W, 3]`, or any input of `displayed`.
        label: class numbers `[H, W]`.
        colors: (red, green, blue) of each class.
        weight: weight of the picture; the class colour has 1 - weight.
    """
    image_bgr = displayed(image_bgr)
    mixed = cv2.addWeighted(image_bgr, weight, colorize(label, colors)[..., ::-1], 1 - weight, 0)
    if len(colors) and tuple(colors[0]) == BACKGROUND_COLOR:
        return np.where((label == 0)[..., None], image_bgr, mixed)
    return mixed


def overlay_label(image_bgr: np.ndarray, label: np.ndarray, colors: Colors, weight: float) -> np.ndarray:
    """`overlay` for class numbers `[H, W]`, `overlay_masks` for a dataset's masks `[K, H, W]`."""
    if label.ndim == 3:
        return overlay_masks(image_bgr, label == 1, colors, weight)
    return overlay(image_bgr, as_label(label), colors, weight)


def encode_image(image_bgr: np.ndarray, suffix: str = ".png") -> bytes:
    """A BGR or grey picture as the content of a file whose name ends in `suffix`."""
    _, content = cv2.imencode(suffix, image_bgr)
    return content.tobytes()


def encode_jpeg(image_bgr: np.ndarray) -> bytes:
    """A BGR picture as the content of a JPEG file."""
    _, content = cv2.imencode(".jpg", image_bgr, [cv2.IMWRITE_JPEG_QUALITY, 85])
    return content.tobytes()


def encode_label_png(label: np.ndarray, colors: Colors) -> bytes:
    """Class numbers as the content of a palette PNG: its pixels are the numbers, and viewers show the colours.

    More than 256 classes do not fit into a palette and are stored as a grey PNG of 16 bits.
    """
    if len(colors) > 256 or (label.size and label.max() > 255):
        _, content = cv2.imencode(".png", label.astype(np.uint16))
        return content.tobytes()
    picture = Image.fromarray(label.astype(np.uint8))
    picture.putpalette(label_palette(colors).tobytes())
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def save_image(path: str | Path, image_bgr: np.ndarray) -> None:
    """Writes a BGR or grey picture in the format of the file name's ending."""
    write_bytes(path, encode_image(image_bgr, Path(path).suffix))


def save_label_png(path: str | Path, label: np.ndarray, colors: Colors) -> None:
    """Writes `encode_label_png`."""
    write_bytes(path, encode_label_png(label, colors))
