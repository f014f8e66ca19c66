# SPDX-License-Identifier: Apache-2.0
"""Protects files from being overwritten: inputs of a program, and files that this project did not write.

Each output folder gets a journal, `.paddle_dnl_outputs`: one line per written file with the SHA-256 of its content and its name
relative to the folder. An existing file may be overwritten only if a journal in its folder, or in a folder above it, lists
its present content. So a program can be run again into its own output folder, while a foreign file, or a result that was
edited by hand, is refused. A line is added before the file gets its name, so a killed program leaves no unlisted file.
"""

import contextlib
import json
import os
import stat
import threading
from collections.abc import Iterable
from pathlib import Path

from paddle_dnl.errors import OutputError, UsageError
from paddle_dnl.files.appending import open_appended
from paddle_dnl.files.reading import file_digest, open_file, parse_json

JOURNAL = ".paddle_dnl_outputs"

_lock = threading.Lock()
_journals: dict[Path, "_Journal"] = {}
_roots: set[Path] = set()  # output folders of this process; journals are made in them, not in each folder below


class _Journal:
    """Entries of one journal file; reads only what was appended since the last call."""

    def __init__(self, folder: Path):
        self.path = folder / JOURNAL
        self._known: set[tuple[str, str]] = set()
        self._file: tuple[int, int] | None = None
        self._position = 0

    def lists(self, digest: str, name: str) -> bool:
        """Whether a line has this digest and name."""
        try:
            with open_file(self.path) as file:
                found = os.fstat(file.fileno())
                if self._file != (found.st_dev, found.st_ino) or found.st_size < self._position:
                    self._file, self._position, self._known = (found.st_dev, found.st_ino), 0, set()
                file.seek(self._position)
                content = file.read()
        except OSError:
            self._file, self._position, self._known = None, 0, set()
            return False
        complete = content.rpartition(b"\n")[0] + b"\n" if b"\n" in content else b""
        self._position += len(complete)
        for line in complete.splitlines():
            found_digest, _, found_name = line.partition(b" ")
            try:
                self._known.add((found_digest.decode(), parse_json(found_name)))
            except (ValueError, TypeError):  # a file with a damaged entry counts as foreign
                continue
        return (digest, name) in self._known

    def add(self, digest: str, name: str) -> None:
        if self.lists(digest, name):
            return
        handle = open_appended(self.path)
        try:
            # One write call, so that lines of several processes do not interleave. The first line break ends an incomplete line.
            start = "\n" if os.fstat(handle).st_size > self._position else ""
            os.write(handle, f"{start}{digest} {json.dumps(name)}\n".encode())
        finally:
            os.close(handle)


def _journal(folder: Path) -> _Journal:
    return _journals.setdefault(folder, _Journal(folder))


def _place(path: Path) -> Path:
    """The path with its folders resolved, but not the file itself if that is a link."""
    return path.parent.resolve() / path.name


def is_ours(path: Path) -> bool:
    """Whether a journal lists the current content of the file."""
    place = _place(path)
    if not stat.S_ISREG(os.lstat(place).st_mode):
        return False
    digest = file_digest(place)
    with _lock:
        return any(
            _journal(folder).lists(digest, place.relative_to(folder).as_posix())
            for folder in place.parents
            if (folder / JOURNAL).is_file()
        )


def record(path: Path, digest: str, folder: Path | None = None) -> None:
    """Records in a journal the content that `path` is about to get.

    Args:
        path: the file.
        digest: SHA-256 of its content.
        folder: of the journal; default: the nearest one above `path` that has one or is an output folder of this program.
    """
    place = _place(path)
    if folder is None:
        above = (other for other in place.parents if other in _roots or (other / JOURNAL).is_file())
        folder = next(above, place.parent)
    else:
        folder = folder.resolve()
    with _lock:
        try:
            _journal(folder).add(digest, place.relative_to(folder).as_posix())
        except OSError:  # a folder above has a journal that is not writable
            if folder == place.parent:
                raise
            _journal(place.parent).add(digest, place.name)


def require_writable(path: str | Path) -> None:
    """Refuses an existing file that this project did not write, or that was changed since; an empty one is accepted.

    Raises:
        OutputError: such a file, or a folder.
        OSError: the name is too long, or part of its path is a file.
    """
    path = Path(path)
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if stat.S_ISREG(found.st_mode) and found.st_size == 0:
        return
    if stat.S_ISDIR(found.st_mode):
        raise OutputError(f"{path}: is a folder; a file of this name is to be written. Choose another output folder")
    if not is_ours(path):
        raise OutputError(
            f"{path}: exists and was not written by this program, or was changed since; it is not overwritten. "
            "Move it away or choose another output folder"
        )


def require_folder(path: str | Path, flag: str = "--save_dir") -> None:
    """Refuses an output folder if its path, or a part of it, is a file.

    Raises:
        UsageError: names the flag.
    """
    for part in (Path(path), *Path(path).parents):
        if os.path.isdir(part):
            return
        if os.path.exists(part):
            what = "" if part == Path(path) else "a part of this path "
            raise UsageError(f"{flag} {path}: {what}is a file; give a folder")


def check_outputs(
    outputs: Iterable[str | Path], inputs: Iterable[str | Path | None], *, root: str | Path | None = None
) -> None:
    """Checks, before the first write of a program, that no output replaces an input or a file that is not ours.

    Args:
        outputs: all files that will be written, as far as known.
        inputs: all files that are read; None and missing ones are ignored.
        root: output folder, which gets the journal; default: each file's own folder.

    Raises:
        OutputError: an output is an input (also through a link) or a file that is not ours; nothing was written.
        OSError: a name is too long, or part of a path is a file.
    """
    if root is not None:
        _roots.add(Path(root).resolve())
    # Only existing outputs are kept in memory, not the names of all pictures.
    existing: list[Path] = []
    files: dict[tuple[int, int], Path] = {}
    for output in map(Path, outputs):
        try:
            os.lstat(output)
        except FileNotFoundError:
            continue
        existing.append(output)
        with contextlib.suppress(FileNotFoundError):  # a link to nothing
            found = os.stat(output)
            files[(found.st_dev, found.st_ino)] = output
    for name in inputs if files else ():
        try:
            found = os.stat(name) if name is not None else None
        except (OSError, ValueError):
            continue
        output = files.get((found.st_dev, found.st_ino)) if found else None
        if output is not None:
            raise OutputError(
                f"{output}: would be overwritten, and is an input ({name}); nothing was written. Choose another output "
                "folder"
            )
    for output in existing:
        require_writable(output)
