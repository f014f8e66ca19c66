# SPDX-License-Identifier: Apache-2.0
"""`log.txt` and `scalars.csv` in a run's folder: log lines and curves without any other library.

Both are appended to by resumed runs. A full disk or a deleted folder loses lines, but does not stop the training.
"""

import contextlib
import csv
import logging
from logging.handlers import WatchedFileHandler
from pathlib import Path

from paddle_dnl.errors import OutputError
from paddle_dnl.files.reading import open_file, read_bytes
from paddle_dnl.log import logger

LOG, SCALARS = "log.txt", "scalars.csv"
_HEAD = ("iteration", "tag", "value")
_LINE = ",".join(_HEAD).encode()


def read_table(path: Path) -> dict[str, dict[int, float]]:
    """Values in a `scalars.csv`: tag -> iteration -> value; later lines replace those of a repeated iteration."""
    points: dict[str, dict[int, float]] = {}
    for row in read_bytes(path).decode(errors="replace").splitlines()[1:]:
        with contextlib.suppress(ValueError):  # the last line of a killed run may be cut
            step, tag, value = row.split(",")
            points.setdefault(tag, {})[int(step)] = float(value)
    return points


class _LogFile(WatchedFileHandler):
    """Opens the file again after the folder was deleted; failures are ignored, since they would be logged here too."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            super().emit(record)
        except OSError:  # the folder is gone
            self.stream = None

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  logging's name
        self.stream = None


class RunRecords:
    """Writes the two files while it is open.

    Args:
        folder: of the run; exists.

    Raises:
        OutputError: `scalars.csv` was not written by this program.
    """

    def __init__(self, folder: Path):
        self._scalars = Path(folder) / SCALARS
        with contextlib.suppress(FileNotFoundError), open_file(self._scalars) as file:
            start = file.read(len(_LINE))
            if not _LINE.startswith(start):  # a killed run may have left its beginning
                raise OutputError(f"{self._scalars}: was not written by this program; move it away")
        self._handler = _LogFile(Path(folder) / LOG, encoding="utf-8", errors="backslashreplace", delay=True)
        self._handler.setFormatter(logging.Formatter("[%(asctime)s] %(levelname)s: %(message)s", "%Y/%m/%d %H:%M:%S"))
        logger.addHandler(self._handler)
        self._failed = False

    def scalars(self, values: dict[str, float], iteration: int) -> None:
        """Adds a line for each tag."""
        try:
            with open(self._scalars, "a", encoding="utf-8", newline="") as file:
                writer = csv.writer(file, lineterminator="\n")
                if file.tell() == 0:
                    writer.writerow(_HEAD)
                writer.writerows((iteration, tag, repr(float(value))) for tag, value in values.items())
        except OSError as error:
            if not self._failed:
                logger.warning(f"{self._scalars}: cannot be written ({error.strerror}); curves are lost until it can")
            self._failed = True

    def close(self) -> None:
        """Ends the recording."""
        logger.removeHandler(self._handler)
        self._handler.close()
