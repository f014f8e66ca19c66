# SPDX-License-Identifier: Apache-2.0
"""Writes checkpoints in a background thread."""

import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from paddle_dnl.errors import CheckpointError
from paddle_dnl.log import logger
from paddle_dnl.training.checkpoints import checkpoint
from paddle_dnl.training.checkpoints.snapshot import Snapshot

if TYPE_CHECKING:
    from paddle_dnl.training.checkpoints.run_folder import RunFolder

_ATTEMPTS = 3
_LAUNCHER_SECONDS = 30.0  # after SIGTERM, `paddle.distributed.launch` kills its processes


class CheckpointWriter:
    """Writes one checkpoint at a time; the next one waits for it.

    If the run's folder is deleted during a write, it is created again and the checkpoint is written again.

    Args:
        keep: see `checkpoint.remove_old`.

    Attributes:
        folder: of the run; None on ranks that write nothing.
    """

    def __init__(self, keep: int):
        self.keep = keep
        self.folder: RunFolder | None = None
        self._was_deleted = self._was_slow = False
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def submit(self, folder: Path, snapshot: Snapshot, written: list[Path]) -> None:
        """Starts to write a checkpoint.

        Args:
            folder: of the checkpoint, in the folder of the run.
            snapshot: what to write.
            written: gets the path of the checkpoint when it is complete.

        Raises:
            CheckpointError: the one before could not be written.
        """
        self.wait()
        self._thread = threading.Thread(target=self._run, args=(folder, snapshot, written), name="save")
        self._thread.start()

    def _run(self, folder: Path, snapshot: Snapshot, written: list[Path]) -> None:
        began = time.monotonic()
        try:
            self._write(folder, snapshot)
            written.append(folder)
            seconds = time.monotonic() - began
            # After a SIGTERM at the start of a write a rank needs time for two: this one, and that of the last step.
            if "PADDLE_TRAINER_ID" in os.environ and 2 * seconds > _LAUNCHER_SECONDS and not self._was_slow:
                self._was_slow = True
                logger.warning(
                    f"{folder}: writing took {seconds:.0f} s, and paddle.distributed.launch kills its processes "
                    f"{_LAUNCHER_SECONDS:.0f} s after SIGTERM: the last checkpoint may be lost, the one before stays. "
                    "Use a faster disk for --save_dir"
                )
        except BaseException as error:
            self._error = error

    def _write(self, folder: Path, snapshot: Snapshot) -> None:
        for attempt in range(_ATTEMPTS):
            error = None
            try:
                checkpoint.write_snapshot(folder, snapshot)
                checkpoint.remove_old(folder.parent, self.keep, newest=folder)
            except CheckpointError as caught:
                error = caught
            if not self.folder.ensure():
                break
            self._was_deleted = True
            error = error or CheckpointError(f"{folder}: was deleted {attempt + 1} times while it was written")
        if error is not None:
            raise error

    def check(self) -> None:
        """Raises the error of a write that has failed, once."""
        error, self._error = self._error, None
        if error is not None:
            raise error

    def wait(self) -> None:
        """Waits until everything is written.

        Raises:
            CheckpointError: it could not be written.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.check()

    def folder_was_deleted(self) -> bool:
        """Waits for the write; returns whether the folder was deleted since the last call. It exists again."""
        self.wait()
        during, self._was_deleted = self._was_deleted, False
        return self.folder.ensure() or during

    def close(self) -> None:
        """Waits; logs an error of the write instead of raising it, since another error may be ending the training."""
        try:
            self.wait()
        except Exception as error:
            logger.error(str(error))
