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
# In the folders that `new_folder` makes: proves that they are ours, and holds the final name.
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
    with contextlib.suppress(PermissionError):  # a folder that may be written but not listed
        flush(path)


# ------------------------------------------------------------------------------------------------- files


class NewFile:
    """A file under a temporary name, for writers that want a path; `write_bytes` and `new_file` are shorter.

    Args:
        path: final name; missing parents are made.
        own: in a folder that only this project uses, such as a cache: not entered into the journal of outputs, and an
            existing file is replaced.
        replace: the user has asked for an existing file to be replaced, also one of another program.

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
            # Not mkstemp: that one's files are private, whatever the umask says.
            os.close(os.open(self.temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))

    @contextlib.contextmanager
    def naming_errors(self) -> Iterator[None]:
        """For a block that writes to `temporary`: an OSError names `path`.

        A failure on a full disk is an OSError with ENOSPC, whatever the writer raised: a native library does not always say
        why it failed.
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
        """Flushes the file, enters it into the journal and gives it its name; removes it when that fails.

        Args:
            digest: SHA-256 of the content, where it is known.
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
        """Removes the temporary file, if it is there."""
        with contextlib.suppress(OSError):
            os.unlink(self.temporary)


@contextlib.contextmanager
def new_file(path: str | Path, *, own: bool = False) -> Iterator[Path]:
    """A temporary path to write to; the file gets its name when the block ends without an exception.

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
    """Writes a file atomically. A file that has this content already only gets the present time.

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
    """An empty folder to fill, which gets the name `final` by `put_in_place`; `discard` removes it.

    It lies in a folder beside `final` that holds a marker, by which `recover` knows it after a kill.

    Args:
        final: the name to come.
        members: names of the files that belong to such a folder; what else an older folder of that name holds is not ours
            and goes into the new one.
    """
    workspace = _workspace(final, members)
    os.mkdir(workspace / _NEW)
    return workspace / _NEW


def discard(temporary: Path) -> None:
    """Removes a folder that `make_temporary` made, used or not."""
    _remove_workspace(temporary.parent)


def _remove_workspace(workspace: Path) -> None:
    """The marker goes last, so that `recover` knows what a kill in between leaves."""
    with contextlib.suppress(OSError):
        for path in workspace.iterdir():
            if path.name != MARKER:
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()
    shutil.rmtree(workspace, ignore_errors=True)


def remove_folder(folder: Path, members: Iterable[str]) -> None:
    """Removes a folder of ours; when the process dies meanwhile, none of its name is left half removed.

    A folder that holds other files than `members` stays, with these other files.
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
    """Tidies what a killed process left in `folder`: a folder moved aside gets its name back, half-written ones go.

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
        except (ValueError, LookupError, TypeError):  # killed while the marker was written: there is nothing else in it
            name = None
        if isinstance(name, str) and name == Path(name).name and (workspace / _OLD).is_dir():
            if (folder / name).exists():
                _keep_others(workspace, folder / name)
            else:
                os.rename(workspace / _OLD, folder / name)
        _remove_workspace(workspace)
