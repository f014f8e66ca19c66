# SPDX-License-Identifier: Apache-2.0
"""Atomic writes: temporary name in the same folder, fsync, rename. The only module that writes files.

A file or folder with its final name is complete. What is being written has a name that starts with `.tmp-`; it is removed on
every failure and signal, and only a process that is killed (SIGKILL) leaves it behind. Permissions follow the umask.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from paddle_dnl.files import outputs, problems
from paddle_dnl.files.reading import file_digest, parse_json, read_bytes

TEMPORARY = ".tmp-"
# File in the folders of `make_temporary`: marks them as ours, and holds the final name.
MARKER = ".paddle_dnl"
_NEW, _OLD = "new", "old"
_WORKSPACE = re.compile(rf"{re.escape(TEMPORARY)}[0-9a-f]{{12}}")
_LONGEST_SUFFIX = 16


def flush(path: Path) -> None:
    """Forces a file or folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _flush_folder(path: Path) -> None:
    with contextlib.suppress(PermissionError):  # a folder with write but no read permission
        flush(path)


# ------------------------------------------------------------------------------------------------- files


class NewFile:
    """A file under a temporary name; `write_bytes` and `new_file` are shorter where they fit.

    Args:
        path: final name; missing parents are made.
        own: the folder is used by this project only, such as a cache: an existing file is replaced, and no entry is made in
            the journal of outputs.
        replace: replace an existing file, also one of another program, as the user asked.

    Attributes:
        temporary: path to write to; an empty file with the suffix of `path`.

    Raises:
        OutputError: `path` is a file that is not ours.
        OSError: the folder cannot be written; names `path`.
    """

    def __init__(self, path: str | Path, *, own: bool = False, replace: bool = False):
        self.path, self._own = Path(path), own
        if not own and not replace:
            outputs.require_writable(self.path)
        suffix = self.path.suffix if len(self.path.suffix) <= _LONGEST_SUFFIX else ""
        self.temporary = self.path.parent / f"{TEMPORARY}{secrets.token_hex(6)}{suffix}"
        with self.naming_errors():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Not mkstemp, which ignores the umask and makes private files.
            os.close(os.open(self.temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))

    @contextlib.contextmanager
    def naming_errors(self) -> Iterator[None]:
        """Context for writing to `temporary`: an OSError names `path`.

        Any exception on a full disk becomes an OSError with ENOSPC, since native libraries do not always say why they failed.
        """
        with problems.naming(self.path, self.temporary):
            try:
                yield
            except OSError:
                raise
            except Exception as error:
                if problems.is_full(self.path):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path)) from error
                raise

    def commit(self, digest: str | None = None) -> None:
        """Flushes the file, records it in the journal and renames it; removes it on failure.

        Args:
            digest: SHA-256 of the content, if known.
        """
        try:
            with self.naming_errors():
                flush(self.temporary)
                if not self._own:
                    outputs.record(self.path, digest or file_digest(self.temporary))
                os.replace(self.temporary, self.path)
                _flush_folder(self.path.parent)
        finally:
            self.discard()

    def discard(self) -> None:
        """Removes the temporary file if it exists."""
        with contextlib.suppress(OSError):
            os.unlink(self.temporary)


@contextlib.contextmanager
def new_file(path: str | Path, *, own: bool = False) -> Iterator[Path]:
    """Context with a temporary path to write to; renamed to `path` if the block ends without an exception.

    Args and errors as `NewFile`, and those of `NewFile.naming_errors`.
    """
    file = NewFile(path, own=own)
    try:
        with file.naming_errors():
            yield file.temporary
        file.commit()
    finally:
        file.discard()


def write_bytes(path: str | Path, content: bytes, *, own: bool = False, replace: bool = False) -> None:
    """Writes a file atomically. If it has this content already, only its time is updated.

    Args and errors as `NewFile`.
    """
    path = Path(path)
    if not own and not replace and path.is_file() and path.stat().st_size == len(content):
        if path.read_bytes() == content and not path.is_symlink():
            with contextlib.suppress(OSError):
                os.utime(path)
            return
    file = NewFile(path, own=own, replace=replace)
    try:
        with file.naming_errors():
            file.temporary.write_bytes(content)
        file.commit(hashlib.sha256(content).hexdigest())
    finally:
        file.discard()


def write_text(path: str | Path, text: str, *, own: bool = False) -> None:
    """Writes a file in UTF-8, whatever the locale; file names in it keep bytes that are not UTF-8."""
    write_bytes(path, text.encode("utf-8", "surrogateescape"), own=own)


# ----------------------------------------------------------------------------------------------- folders


def _workspace(final: Path, members: Iterable[str]) -> Path:
    workspace = final.parent / f"{TEMPORARY}{secrets.token_hex(6)}"
    with problems.naming(final, workspace):
        os.mkdir(workspace)
    try:
        with problems.naming(final, workspace / MARKER):
            (workspace / MARKER).write_text(json.dumps([final.name, *members]), encoding="ascii")
    except OSError:
        _remove_workspace(workspace)
        raise
    return workspace


def make_temporary(final: Path, members: Iterable[str] = ()) -> Path:
    """An empty folder, which `put_in_place` renames to `final` and `discard` removes.

    It is in a folder beside `final` with a marker file, by which `recover` recognises it after a kill.

    Args:
        final: its later path.
        members: names of our files in such a folder; other files in an existing folder `final` are moved to the new one.
    """
    workspace = _workspace(final, members)
    os.mkdir(workspace / _NEW)
    return workspace / _NEW


def discard(temporary: Path) -> None:
    """Removes a folder of `make_temporary`, after `put_in_place` or instead of it."""
    _remove_workspace(temporary.parent)


def _remove_workspace(workspace: Path) -> None:
    """Removes the marker last, so that `recover` recognises the rest after a kill."""
    with contextlib.suppress(OSError):
        for path in workspace.iterdir():
            if path.name != MARKER:
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()
    shutil.rmtree(workspace, ignore_errors=True)


def remove_folder(folder: Path, members: Iterable[str]) -> None:
    """Removes a folder of ours; if the process is killed meanwhile, no partly removed folder of this name remains.

    A folder with other files than `members` is kept, with these files.
    """
    members = set(members)
    others = [path for path in folder.iterdir() if path.name not in members]
    workspace = _workspace(folder, members)
    if others:
        for name in members & set(os.listdir(folder)):
            os.rename(folder / name, workspace / name)
    else:
        os.rename(folder, workspace / "removed")
    _remove_workspace(workspace)


def put_in_place(temporary: Path, final: Path) -> None:
    """Renames a finished folder of `make_temporary` to its name; an older folder is moved aside first and removed last."""
    workspace = temporary.parent
    aside = workspace / _OLD
    if final.exists():
        os.rename(final, aside)
    try:
        os.rename(temporary, final)
    except OSError:
        if aside.exists():
            os.rename(aside, final)
        raise
    _flush_folder(final.parent)
    _keep_others(workspace, final)
    _remove_workspace(workspace)


def _keep_others(workspace: Path, final: Path) -> None:
    """Moves what is not ours from the replaced folder into the new one."""
    if (workspace / _OLD).is_dir():
        members = parse_json(read_bytes(workspace / MARKER))[1:]
        for other in (workspace / _OLD).iterdir():
            if other.name not in members and not (final / other.name).exists():
                os.rename(other, final / other.name)


def recover(folder: str | Path) -> None:
    """Cleans up after a killed process: renames a folder that was moved aside back, and removes incomplete ones.

    Only folders with our marker are touched.
    """
    folder = Path(folder)
    for workspace in folder.glob(f"{TEMPORARY}*"):
        if not _WORKSPACE.fullmatch(workspace.name):
            continue
        if workspace.is_symlink() or not (workspace / MARKER).is_file():
            with contextlib.suppress(OSError):  # killed before the marker was written: empty
                os.rmdir(workspace)
            continue
        try:
            name = parse_json(read_bytes(workspace / MARKER))[0]
        except (ValueError, LookupError, TypeError):  # killed while writing the marker: there is nothing else in it
            name = None
        if isinstance(name, str) and name == Path(name).name and (workspace / _OLD).is_dir():
            if (folder / name).exists():
                _keep_others(workspace, folder / name)
            else:
                os.rename(workspace / _OLD, folder / name)
        _remove_workspace(workspace)
