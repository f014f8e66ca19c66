# SPDX-License-Identifier: Apache-2.0
"""Reasons for failed writes; a full disk is named by its mount point."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

_FULL = (errno.ENOSPC, errno.EDQUOT)
# Native libraries write in blocks, so some bytes may still be free when a write fails.
_ALMOST_FULL = 1 << 20


def mount_point(path: str | Path) -> Path:
    """Mount point of the file system of `path`."""
    place = Path(os.path.realpath(path))
    while not os.path.ismount(place):
        place = place.parent
    return place


def is_full(path: str | Path) -> bool:
    """Whether less than 1 MiB is free for this user on the file system of a path, which need not exist yet."""
    place = Path(os.path.realpath(path))
    while not place.exists():
        place = place.parent
    try:
        found = os.statvfs(place)
    except (AttributeError, OSError):  # not on every system
        return False
    return found.f_bavail * found.f_frsize < _ALMOST_FULL


@contextlib.contextmanager
def naming(path: str | Path, *temporary: Path) -> Iterator[None]:
    """Replaces the file name of an OSError by `path` if it has none, as after a failed write, or that of a temporary file."""
    try:
        yield
    except OSError as error:
        if error.filename is not None and error.filename not in {*temporary, *map(str, temporary)}:
            raise
        raise type(error)(error.errno, error.strerror or str(error), str(path)) from error


def reason(error: Exception, path: str | Path) -> str:
    """Why writing `path` failed; a full disk is named by its mount point.

    Native libraries raise RuntimeError or ValueError on a full disk, so that the free space is checked too.
    """
    number = error.errno if isinstance(error, OSError) else None
    if number in _FULL or (number is None and is_full(path)):
        return f"{os.strerror(number or errno.ENOSPC)}: the disk mounted at {mount_point(path)}"
    if number == errno.EFBIG:
        return f"{os.strerror(number)}: see `ulimit -f`, or the limit of the disk mounted at {mount_point(path)}"
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
