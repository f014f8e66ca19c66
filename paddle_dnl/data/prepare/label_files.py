"""Label pictures and image sets written whole or not at all; used by the dataset conversions."""

import io
import os
import tempfile
from pathlib import Path

from paddle_dnl.data.classes import bit_palette
from paddle_dnl.errors import DataError

import numpy as np
from PIL import Image


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file under another name first, so that an interrupted run leaves no half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=path.suffix)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_label(path: Path, label: np.ndarray) -> None:
    """Class numbers `[H, W]` (0 to 255) as a PNG with PASCAL VOC's palette."""
    picture = Image.fromarray(label.astype(np.uint8))
    picture.putpalette([value for color in bit_palette(256) for value in color])
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    write_whole(path, buffer.getvalue())


def is_done(source: Path, target: Path) -> bool:
    """Whether `target` is there, not empty and not older than `source`."""
    if not target.exists():
        return False
    made = target.stat()
    return made.st_size > 0 and made.st_mtime_ns >= source.stat().st_mtime_ns


def read_names(path: Path) -> list[str]:
    """Image names of an image set, one per line.

    Raises:
        DataError: no such file, or an empty one.
    """
    try:
        names = path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as an image set ({error})") from error
    if not names:
        raise DataError(f"{path}: lists no images")
    return names


def write_names(path: Path, names: list[str]) -> None:
    """An image set, one name per line."""
    write_whole(path, "".join(f"{name}\n" for name in names).encode())
