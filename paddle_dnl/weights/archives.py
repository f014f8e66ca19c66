# SPDX-License-Identifier: Apache-2.0
"""Extracts the one .pdparams file of a tar or zip archive; paths in the archive are never used.

Python's `tarfile` and `zipfile` allocate the sizes that an archive states: a name of 4 GB (a few MB under gzip), a sparse
map, a table of a million files. Here the headers of a tar are read one by one with bounded sizes, and the size of a zip's
table is checked before it is read.
"""

import gzip
import io
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath

from paddle_dnl.errors import DownloadError

ENDING = ".pdparams"

_MAX_FILES = 10_000
_MAX_TABLE = 4 << 20  # bytes of the table at the end of a zip
_MAX_NAME = 1 << 16  # bytes of a long name or of PAX records in a tar
_BLOCK = 512
# Members of a tar that may state a size but have no content.
_WITHOUT_DATA = (
    tarfile.LNKTYPE,
    tarfile.SYMTYPE,
    tarfile.CHRTYPE,
    tarfile.BLKTYPE,
    tarfile.DIRTYPE,
    tarfile.FIFOTYPE,
)
# Exceptions of unpacking damaged or malicious content; NotImplementedError (unknown compression) is a RuntimeError.
_BROKEN = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    OSError,
    RuntimeError,
    ValueError,
    IndexError,
)


def extract_weights(archive: Path, to: Path, max_bytes: int) -> None:
    """Copies the one weights file of a .tar, .tar.gz or .zip archive to `to`.

    Args:
        archive: the file; its format is recognised by content.
        to: the file to write; no path from the archive is ever used.
        max_bytes: limit for the unpacked weights, and for a whole unpacked tar.

    Raises:
        DownloadError: not an archive, too large, or not exactly one regular file of weights in it.
    """
    try:
        if zipfile.is_zipfile(archive):
            _require_small_table(archive)
            with zipfile.ZipFile(archive) as bundle:
                # No link, device or folder; archives from other systems than Unix leave the type at 0.
                infos = [
                    info
                    for info in bundle.infolist()
                    if _is_weights(info.filename)
                    and not info.is_dir()
                    and stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG)
                ]
                info = infos[_choose([info.filename for info in infos])]
                if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise DownloadError("the archive is packed in an unusual way; use an ordinary zip or tar.gz")
                with bundle.open(info) as source:
                    _copy(source, to, max_bytes)
        else:
            # gzip is recognised by its first bytes, not by the name.
            with open(archive, "rb") as file:
                packed = file.read(2) == b"\x1f\x8b"
            with gzip.open(archive, "rb") if packed else open(archive, "rb") as stream:
                found = list(_tar_files(stream, max_bytes))
                _, start, size = found[_choose([name for name, _, _ in found])]
                stream.seek(start)
                _copy(stream, to, max_bytes, size)
    except _BROKEN as error:
        raise DownloadError(f"not a readable archive ({error})") from error


def _is_weights(name: str) -> bool:
    """Whether a name is that of weights; `._model.pdparams`, which macOS adds, is not."""
    return name.endswith(ENDING) and not PureWindowsPath(name).name.startswith(".")


def _choose(names: list[str]) -> int:
    """Index of the one weights file, or of the one called `model` among several."""
    chosen = [i for i, name in enumerate(names) if PureWindowsPath(name).stem == "model"] if len(names) > 1 else [0]
    if not names or len(chosen) != 1:
        raise DownloadError(
            f"the archive holds {len(names)} weights files; expected one {ENDING} ({', '.join(names[:3])})"
        )
    return chosen[0]


def _copy(source, to: Path, max_bytes: int, size: int | None = None) -> None:
    """Copies `size` bytes, or all; stops at `max_bytes`, since an archive may hold more than it states."""
    copied = 0
    with open(to, "wb") as file:
        while chunk := source.read((1 << 20) if size is None else min(1 << 20, size - copied)):
            copied += len(chunk)
            if copied > max_bytes:
                raise DownloadError(f"the weights in it are larger than {max_bytes} bytes")
            file.write(chunk)
    if size is not None and copied < size:
        raise DownloadError("the archive ends in the middle of the weights")


# ------------------------------------------------------------------------------------------------ zip


def _require_small_table(archive: Path) -> None:
    """Refuses a large table of files, which `zipfile` would read into memory when it opens the archive."""
    with open(archive, "rb") as file:
        end = file.seek(0, io.SEEK_END)
        file.seek(max(0, end - (1 << 16) - 42))
        tail = file.read()
    at = len(tail) - 22
    if at < 0 or tail[at : at + 4] != b"PK\5\6" or tail[-2:] != b"\0\0":
        at = tail.rfind(b"PK\5\6")
    files, size = struct.unpack_from("<H", tail, at + 10)[0], struct.unpack_from("<L", tail, at + 12)[0]
    has_large_form = tail[max(0, at - 20) : at].startswith(b"PK\6\7")
    if has_large_form or files > _MAX_FILES or size > _MAX_TABLE:
        raise DownloadError(f"the archive lists more than {_MAX_FILES} files or is larger than 4 GiB")


# ------------------------------------------------------------------------------------------------ tar


def _tar_files(stream, max_bytes: int) -> Iterator[tuple[str, int, int]]:
    """Name, offset and size of the weights files in a tar; regular files only."""
    position, long_name, heads = 0, None, 0
    while block := stream.read(_BLOCK):
        position += _BLOCK
        if not any(block):
            return
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        heads += 1
        if info.size < 0 or position + info.size > max_bytes:
            raise DownloadError(f"the archive unpacks to more than {max_bytes} bytes")
        if heads > _MAX_FILES:
            raise DownloadError(f"the archive lists more than {_MAX_FILES} files")
        if info.type in (tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE):
            if info.size > _MAX_NAME:
                raise DownloadError("the archive holds a name that is no file name")
            content = stream.read(info.size)
            long_name = _long_name(info.type, content) or long_name
            stream.seek(position)
        else:
            name, long_name = long_name or info.name, None
            if info.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and _is_weights(name):
                yield name, position, info.size
        position += -(-info.size // _BLOCK) * _BLOCK if info.type not in _WITHOUT_DATA else 0
        stream.seek(position)


def _long_name(kind: bytes, content: bytes) -> str | None:
    """The name of the next file: the content itself, or the PAX record `LENGTH path=NAME`."""
    if kind == tarfile.GNUTYPE_LONGNAME:
        return content.rstrip(b"\0").decode("utf-8", "surrogateescape")
    name, at = None, 0
    while at < len(content):
        length = int(content[at : content.index(b" ", at)])
        record = content[at : at + length].partition(b" ")[2]
        if length < 5 or not record.endswith(b"\n"):
            raise ValueError("damaged PAX records")
        key, _, value = record[:-1].partition(b"=")
        if key == b"path":
            name = value.decode("utf-8", "surrogateescape")
        elif key in (b"size", b"GNU.sparse.major"):
            raise ValueError("a file with holes, or larger than 8 GB")
        at += length
    return name
