"""The output folder of one training run: made, checked and held by one run at a time."""

import fcntl
import os
import socket
from pathlib import Path

from paddle_dnl.engine import checkpoint
from paddle_dnl.errors import CheckpointError


class RunFolder:
    """Makes `save_dir`, locks it for this run and tidies what a killed run left in it.

    The lock belongs to the process and ends with it, however it ends.

    Raises:
        CheckpointError: the path is a file, cannot be written, or another run holds it.
    """

    def __init__(self, save_dir: str | Path):
        self.path = Path(save_dir)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = open(self.path / ".lock", "a+")
        except FileExistsError as error:
            raise CheckpointError(f"--save_dir {save_dir}: is a file; give a folder") from error
        except NotADirectoryError as error:
            raise CheckpointError(f"--save_dir {save_dir}: a part of this path is a file; give a folder") from error
        except OSError as error:
            raise CheckpointError(f"--save_dir {save_dir}: cannot be written ({error.strerror})") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.seek(0)
            owner = self._lock.read().strip() or "another process"
            message = f"--save_dir {save_dir}: {owner} is training in this folder; give another one"
            raise CheckpointError(message) from error
        self._lock.truncate(0)
        self._lock.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        self._lock.flush()
        checkpoint.recover(self.path)

    def close(self) -> None:
        """Lets the folder go."""
        # Closing alone would leave the lock with data loading processes that were forked while it was held.
        fcntl.flock(self._lock, fcntl.LOCK_UN)
        self._lock.close()
