# SPDX-License-Identifier: Apache-2.0
"""Reasons of failed writes; a full disk is named by its mount point."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

_FULL = (errno.ENOSPC, errno.EDQUOT)
# Native libraries write in blocks, so a few bytes may be free when a write fails.
_ALMOST_FULL = 1 << 20


def mount_point(path: str | Path) -> Path:
    """The folder at which the file system of `path` is mounted."""
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
    """Gives an OSError the name of the file that the user knows: one without a name, as of a failed write, or of `temporary`."""
    try:
        yield
    except OSError as error:
        if error.filename is not None and error.filename not in {*temporary, *map(str, temporary)}:
            raise
        raise type(error)(error.errno, error.strerror or str(error), str(path)) from error


def reason(error: Exception, path: str | Path) -> str:
    """What failed when `path` was written; a full disk is named by its mount point.

    Native libraries hide a full disk behind a RuntimeError or ValueError of their own, so that the disk is asked too.
    """
    number = error.errno if isinstance(error, OSError) else None
    if number in _FULL or (number is None and is_full(path)):
        return f"{os.strerror(number or errno.ENOSPC)}: the disk mounted at {mount_point(path)}"
    if number == errno.EFBIG:
        return f"{os.strerror(number)}: see `ulimit -f`, or the limit of the disk mounted at {mount_point(path)}"
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
