# SPDX-License-Identifier: Apache-2.0
"""Writes label pictures and image sets, for the dataset conversions."""

import io
from pathlib import Path

from paddle_dnl.data.classes import bit_palette
from paddle_dnl.files.atomic import write_bytes

import numpy as np
from PIL import Image


def write_label(path: Path, label: np.ndarray, replace: bool = False) -> None:
    """Writes class numbers `[H, W]` (0 to 255) as PNG with PASCAL VOC's palette; `replace`: overwrite files of others too."""
    picture = Image.fromarray(label.astype(np.uint8))
    picture.putpalette([value for color in bit_palette(256) for value in color])
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    write_bytes(path, buffer.getvalue(), replace=replace)


def is_done(source: Path, target: Path) -> bool:
    """Whether `target` exists, is not empty and is not older than `source`."""
    if not target.exists():
        return False
    made = target.stat()
    return made.st_size > 0 and made.st_mtime_ns >= source.stat().st_mtime_ns


def write_names(path: Path, names: list[str]) -> None:
    """Writes an image set, one name per line."""
    write_bytes(path, "".join(f"{name}\n" for name in names).encode())
