# SPDX-License-Identifier: Apache-2.0
"""Files that are only appended to: the lock of a run and the journal of outputs."""

import errno
import os
import stat
from pathlib import Path


def open_appended(path: Path) -> int:
    """Opens or creates a file for reading and appending; returns the file descriptor.

    A link, which may lead to a file of somebody else, and a pipe, which would block, are refused.

    Raises:
        OSError: names `path`; it is a link, folder, pipe or device, or cannot be written.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        handle = os.open(path, flags, 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, f"{path.name} is a link; remove it", str(path)) from error
        raise
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, f"{path.name} is a pipe or device, no file; remove it", str(path))
    return handle
