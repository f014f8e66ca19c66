# SPDX-License-Identifier: Apache-2.0
"""The output folder of a training run, with a lock against a second run."""

import contextlib
import errno
import os
import socket
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO

from paddle_dnl.config.choices import CONFIG_NAME
from paddle_dnl.errors import CheckpointError, OutputError, UsageError
from paddle_dnl.files import outputs
from paddle_dnl.files.appending import open_appended
from paddle_dnl.files.atomic import recover, write_bytes, write_text
from paddle_dnl.files.problems import reason
from paddle_dnl.log import logger
from paddle_dnl.training.checkpoints import file_lock

# Where config.yml is not ours, for instance a hand-written one.
OTHER_CONFIG = "resolved_config.yml"
LOCK = ".paddle_dnl_lock"
_OWNER = "process "  # start of the lock file's content


def config_of(run_dir: str | Path) -> Path:
    """Path of a run's resolved configuration, see `RunFolder.write_config`; the file need not exist."""
    other = Path(run_dir) / OTHER_CONFIG
    return other if other.is_file() else Path(run_dir) / CONFIG_NAME


class RunFolder:
    """Makes `save_dir`, locks it for this run and removes temporary files of a killed run.

    The lock ends with the process, even if it is killed.

    Raises:
        CheckpointError: the path is a file, cannot be written, or another run holds it.
    """

    def __init__(self, save_dir: str | Path):
        self.path = Path(save_dir)
        self._lock = self._take()
        if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork either
            this = weakref.ref(self)  # a weak reference, because these callbacks are never removed

            def close_in_child():
                """Forked data loading processes would keep the lock after this process was killed."""
                if (folder := this()) is not None:
                    folder._lock.close()

            os.register_at_fork(after_in_child=close_in_child)
        try:
            with self._naming_errors():
                recover(self.path)
        except CheckpointError:
            self.close()
            raise

    @contextlib.contextmanager
    def _naming_errors(self) -> Iterator[None]:
        try:
            yield
        except UsageError as error:
            raise CheckpointError(str(error)) from error
        except OSError as error:
            raise CheckpointError(f"--save_dir {self.path}: cannot be written ({reason(error, self.path)})") from error

    def _take(self) -> TextIO:
        with self._naming_errors():
            outputs.require_folder(self.path)
            self.path.mkdir(parents=True, exist_ok=True)
            lock = os.fdopen(open_appended(self.path / LOCK), "a+")
        try:
            file_lock.lock(lock)
        except OSError as error:
            if error.errno in file_lock.HELD:
                lock.seek(0)
                owner = lock.read().strip() or "another process"
                lock.close()
                message = f"--save_dir {self.path}: {owner} is training in this folder; give another one"
                raise CheckpointError(message) from error
            logger.warning(
                f"--save_dir {self.path}: cannot be locked here ({error.strerror}); make sure that no other run uses it"
            )
        try:
            with self._naming_errors():
                lock.seek(0)
                if lock.read(len(_OWNER)) not in ("", _OWNER):
                    raise OSError(errno.EEXIST, f"{LOCK} was not written by this program; move it away")
                lock.truncate(0)
                lock.write(f"{_OWNER}{os.getpid()} on {socket.gethostname()}\n")
                lock.flush()
        except CheckpointError:
            with contextlib.suppress(OSError):  # closing flushes again
                lock.close()
            raise
        return lock

    def write_config(self, text: str, read: Iterable[str | Path]) -> None:
        """Writes the resolved configuration as `config.yml`, or as `resolved_config.yml` if that file is an input or not ours.

        A differing one of an earlier run is kept as `config.N.yml`, N counting up.

        Args:
            text: the configuration.
            read: files from which it was read.

        Raises:
            CheckpointError: it cannot be written, or both names are taken.
        """
        path = self.path / CONFIG_NAME
        try:
            if path.is_file() and path.read_bytes() == text.encode():
                return
            try:
                outputs.check_outputs([path], read, root=self.path)
            except OutputError:
                path = self.path / OTHER_CONFIG
                logger.warning(
                    f"{self.path / CONFIG_NAME}: was not written by this run and is kept; the configuration is in {path.name}"
                )
                outputs.check_outputs([path], read, root=self.path)
            if path.is_file() and path.read_bytes() != text.encode():
                number = 1
                while os.path.lexists(kept := path.with_name(f"{path.stem}.{number}.yml")):
                    number += 1
                write_bytes(kept, path.read_bytes())
                logger.info(f"{path}: the configuration of the run before is kept as {kept.name}")
            write_text(path, text)
        except OSError as error:
            raise CheckpointError(f"{path}: could not be written ({reason(error, path)})") from error

    def ensure(self) -> bool:
        """Creates and locks the folder again if it was deleted, so that the training in memory is not lost.

        Returns:
            Whether it was deleted.

        Raises:
            CheckpointError: as the class; another run may have created the folder meanwhile.
        """
        try:
            held, there = os.fstat(self._lock.fileno()), os.stat(self.path / LOCK)
            if (held.st_dev, held.st_ino) == (there.st_dev, there.st_ino):
                return False
        except OSError:
            pass
        logger.warning(f"{self.path}: was deleted during the training; it is created again")
        lost, self._lock = self._lock, self._take()
        lost.close()
        return True

    def close(self) -> None:
        """Releases the lock."""
        # Closing alone would not release it while a process forked by native code holds a copy.
        with contextlib.suppress(OSError):  # a file system without locks
            file_lock.unlock(self._lock)
        self._lock.close()
