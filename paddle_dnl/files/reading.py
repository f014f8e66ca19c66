# SPDX-License-Identifier: Apache-2.0
"""Reads untrusted files: regular ones of bounded size; JSON of bounded depth; digests."""

import errno
import hashlib
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

# The largest files that are read at once are annotations of large datasets.
_MOST = 4 << 30
_BLOCK = 1 << 20
_NO_FILE = "is a folder, pipe or device, no file"


def require_file(path: str | Path, error_class: Callable[[str], Exception]) -> None:
    """Refuses paths that are not regular files, before a library opens them: a pipe would block, a device never ends.

    Args:
        path: of the file.
        error_class: class of the error to raise, or a function that makes it from the message.

    Raises:
        error_class: names `path`; missing, or a folder, pipe or device.
    """
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise error_class(f"{path}: cannot be read ({error.strerror or error})") from error
    if not stat.S_ISREG(mode):
        raise error_class(f"{path}: {_NO_FILE}; give the path of a file")


def open_file(path: str | Path) -> BinaryIO:
    """Opens a regular file for reading; a pipe would block, a device never ends.

    Raises:
        OSError: names `path`; missing, unreadable, or a folder, pipe or device.
    """
    handle = os.open(
        path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)
    )  # else opening a pipe without a writer would block
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, _NO_FILE, str(path))
    return open(handle, "rb")


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    found = hashlib.sha256()
    with open_file(path) as file:
        while block := file.read(_BLOCK):
            found.update(block)
    return found.hexdigest()


def read_bytes(path: str | Path, most: int = _MOST) -> bytes:
    """The content of a regular file.

    Args:
        path: of the file.
        most: largest size in bytes.

    Raises:
        OSError: as `open_file`; or it is larger than `most`.
    """
    with open_file(path) as file:
        if os.fstat(file.fileno()).st_size > most:
            raise OSError(errno.EFBIG, f"is larger than {most} bytes", str(path))
        return file.read()


def parse_json(text: str | bytes, object_pairs_hook: Callable | None = None):
    """The value of a JSON text, as `json.loads`.

    Raises:
        ValueError: not JSON, or nested too deeply, for which `json.loads` raises RecursionError.
    """
    try:
        return json.loads(text, object_pairs_hook=object_pairs_hook)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
