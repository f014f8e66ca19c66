# SPDX-License-Identifier: Apache-2.0
"""What a file of weights must be before it is opened."""

import os
import stat
from pathlib import Path

from paddle_dnl.errors import CheckpointError


def require_file(path: Path) -> None:
    """Refuses what is no file: a pipe would be waited for, a device read without end.

    Raises:
        CheckpointError: missing, a folder, a pipe or a device.
    """
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from error
    if not stat.S_ISREG(mode):
        raise CheckpointError(f"{path}: is a folder, pipe or device, no file; give the file with the weights")
