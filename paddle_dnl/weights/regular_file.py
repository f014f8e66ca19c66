# SPDX-License-Identifier: Apache-2.0
"""What a file of weights must be before it is opened."""

from pathlib import Path

from paddle_dnl.errors import CheckpointError
from paddle_dnl.files import reading


def require_file(path: Path) -> None:
    """Refuses what is no file, see `paddle_dnl.files.reading.require_file`.

    Raises:
        CheckpointError: missing, a folder, a pipe or a device.
    """
    reading.require_file(path, CheckpointError, "; give the file with the weights")
