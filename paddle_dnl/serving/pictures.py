"""Pictures from untrusted bytes: the head is read first, so that a small file that unfolds to gigabytes never does."""

import io

from PIL import Image

from .refusal import Refusal

# What infer.py reads, by Pillow's names.
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM")
CONTENT_TYPES = ("image/png", "image/jpeg", "image/bmp", "image/tiff", "image/webp", "image/x-portable-pixmap")


def _size(content: bytes) -> tuple[int, int]:
    """(width, height) from the head; nothing is decoded."""
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as picture:
            return picture.size
    except Image.DecompressionBombError as error:
        raise Refusal(413, f"the picture is too large ({error})") from error
    except Exception as error:  # hostile heads make Pillow raise nearly anything
        known = ", ".join(FORMATS)
        raise Refusal(415, f"this is not a picture of a known format ({known}), or its head is damaged") from error


def require_size(content: bytes, max_pixels: int) -> None:
    """Lets pictures through that are worth decoding.

    Raises:
        Refusal: no picture, or one with too many pixels.
    """
    width, height = _size(content)
    if width * height > max_pixels:
        raise Refusal(
            413,
            f"the picture has {width}x{height} = {width * height} pixels, allowed are {max_pixels} (max_pixels)",
        )
