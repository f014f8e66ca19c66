# SPDX-License-Identifier: Apache-2.0
"""An exclusive lock on an open file that ends with the process: flock on Unix, a locked byte on Windows.

The Windows part has not been run.
"""

import errno
import os
from typing import TextIO

# Error numbers when another process holds the lock.
HELD = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)


def lock(file: TextIO) -> None:
    """Takes the lock, or fails without waiting.

    Raises:
        OSError: with an error number in `HELD` if another process has it; with another one if the file system has no locks.
    """
    _change(file, True)


def unlock(file: TextIO) -> None:
    """Releases the lock.

    Raises:
        OSError: the file system has no locks.
    """
    _change(file, False)


def _change(file: TextIO, take: bool) -> None:
    # Neither module is on every system.
    try:
        import fcntl
    except ImportError:
        try:
            import msvcrt
        except ImportError:
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK)) from None
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK if take else msvcrt.LK_UNLCK, 1)
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB if take else fcntl.LOCK_UN)
