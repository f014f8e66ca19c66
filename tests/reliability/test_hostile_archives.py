# SPDX-License-Identifier: Apache-2.0
"""Archives that want out of their folder or into all of the memory; a server could send any of them as start weights."""

import gzip
import io
import os
import stat
import struct
import tarfile
import time
import tracemalloc
import zipfile

from paddle_dnl.errors import DownloadError
from paddle_dnl.weights import archives

import pytest

WEIGHTS = bytes(range(256)) * 8
MAX_BYTES = 64 << 20


def _tar(*members: tuple, packed: bool = False) -> bytes:
    """Members are (name, content or None, attributes of the head)."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz" if packed else "w", format=tarfile.GNU_FORMAT) as bundle:
        for name, content, attributes in members:
            info = tarfile.TarInfo(name)
            info.size = len(content or b"")
            for key, value in attributes.items():
                setattr(info, key, value)
            bundle.addfile(info, io.BytesIO(content) if content else None)
    return stream.getvalue()


def _zip(*members: tuple, method=zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as bundle:
        for name, content, mode in members:
            info = zipfile.ZipInfo(name)
            info.external_attr, info.compress_type = mode << 16, method
            bundle.writestr(info, content)
    return stream.getvalue()


def _head(kind: bytes, size: int, name: str = "model.pdparams") -> bytes:
    """The head of a tar member that states a size, whatever follows."""
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


def _gzip_of_zeros(before: bytes, zeros: int) -> bytes:
    stream = io.BytesIO()
    with gzip.GzipFile(fileobj=stream, mode="wb", compresslevel=1) as file:
        file.write(before)
        for _ in range(zeros >> 20):
            file.write(bytes(1 << 20))
    return stream.getvalue()


def _zip_of_many_names(count: int) -> bytes:
    """A table of `count` empty files at the end of a zip."""
    entry = struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    return entry * count + struct.pack(
        "<4s4H2LH", b"PK\5\6", 0, 0, count & 0xFFFF, count & 0xFFFF, len(entry) * count, 0, 0
    )


def _tar_of_holes(blocks: int) -> bytes:
    """GNU's old form of a sparse file: map after map of holes, before any data."""
    head = bytearray(_head(tarfile.GNUTYPE_SPARSE, 0))
    head[482] = 1  # more maps follow
    head[148:156] = b"        "
    head[148:156] = b"%06o\0 " % sum(head)
    block = bytearray(512)
    for i in range(21):
        block[i * 24 : i * 24 + 24] = b"%011o\0%011o\0" % (i, 1)
    block[504] = 1
    return bytes(head) + bytes(block) * blocks


LINK, DEVICE = tarfile.SYMTYPE, tarfile.CHRTYPE
NONE = "holds 0 weights files"


def _negative_size() -> bytes:
    head = bytearray(_head(tarfile.REGTYPE, 1))
    head[124:136] = b"\xff" * 12
    head[148:156] = b"        "
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head)


# What must not come out of any of these: weights, a file elsewhere, or a large bill.
REFUSED = {
    "symbolic link": (lambda: _tar(("model.pdparams", None, {"type": LINK, "linkname": "/etc/passwd"})), NONE),
    "hard link": (lambda: _tar(("model.pdparams", None, {"type": tarfile.LNKTYPE, "linkname": "../../secret"})), NONE),
    "device": (lambda: _tar(("model.pdparams", None, {"type": DEVICE, "devmajor": 1, "devminor": 5})), NONE),
    "pipe": (lambda: _tar(("model.pdparams", None, {"type": tarfile.FIFOTYPE})), NONE),
    "folder": (lambda: _tar(("model.pdparams", None, {"type": tarfile.DIRTYPE})), NONE),
    "link in a zip": (lambda: _zip(("model.pdparams", b"/etc/passwd", stat.S_IFLNK | 0o777)), NONE),
    "device in a zip": (lambda: _zip(("model.pdparams", b"x", stat.S_IFCHR | 0o666)), NONE),
    "bomb in a tar": (lambda: _gzip_of_zeros(_head(tarfile.REGTYPE, 256 << 20), 256 << 20), "unpacks to more than"),
    "bomb in a zip": (lambda: _zip(("model.pdparams", bytes(128 << 20), 0)), "weights in it are larger"),
    "bomb beside the weights": (
        lambda: _gzip_of_zeros(
            _tar(("model.pdparams", b"x", {}))[:1024] + _head(tarfile.REGTYPE, 1 << 30, "b"), 1 << 20
        ),
        "unpacks to more than",
    ),
    "name of 60 MB": (lambda: _gzip_of_zeros(_head(tarfile.GNUTYPE_LONGNAME, 60 << 20), 60 << 20), "no file name"),
    "records of 60 MB": (lambda: _gzip_of_zeros(_head(tarfile.XHDTYPE, 60 << 20), 60 << 20), "no file name"),
    "records that are none": (lambda: _head(tarfile.XHDTYPE, 5) + b"0 a=b".ljust(512, b"\0"), "PAX records"),
    "map of holes": (lambda: gzip.compress(_tar_of_holes(50_000), 1), "not a readable archive"),
    "size below zero": (_negative_size, "not a readable archive|unpacks to more"),
    "a million names in a zip": (lambda: _zip_of_many_names(1_000_000), "lists more than"),
    "20,000 files in a tar": (lambda: gzip.compress(_head(tarfile.REGTYPE, 0, "a") * 20_000, 1), "lists more than"),
    "archive in an archive": (lambda: _zip(("inner.zip", _zip(("model.pdparams", WEIGHTS, 0)), 0)), NONE),
    "wrong magic": (lambda: b"PK\3\4" + bytes(600), "not a readable archive"),
    "text": (lambda: b"<html>log in</html>", "not a readable archive"),
    "nothing": (lambda: b"", NONE),
    "two in different case": (
        lambda: _zip(("a/Net.pdparams", b"1", 0), ("a/net.pdparams", b"2", 0)),
        "2 weights files",
    ),
    "cut gzip": (lambda: _tar(("model.pdparams", os.urandom(5000), {}), packed=True)[:-2000], "not a readable archive"),
    "cut tar": (lambda: _tar(("model.pdparams", WEIGHTS, {}))[:1000], "ends in the middle"),
    "packed with LZMA": (lambda: _zip(("model.pdparams", WEIGHTS, 0), method=zipfile.ZIP_LZMA), "unusual way"),
}
KEPT = {
    "parent folders": lambda: _tar(("../../../model.pdparams", WEIGHTS, {})),
    "parent folders in a zip": lambda: _zip(("../../model.pdparams", WEIGHTS, 0)),
    "absolute": lambda: _tar(("/tmp/model.pdparams", WEIGHTS, {}), packed=True),
    "absolute in a zip": lambda: _zip(("/etc/model.pdparams", WEIGHTS, 0)),
    "link beside": lambda: _tar(("d", None, {"type": LINK, "linkname": ".."}), ("d/model.pdparams", WEIGHTS, {})),
    "other alphabets": lambda: _zip(("模型/モデル é.pdparams", WEIGHTS, 0)),
    "name of 300 letters": lambda: _tar(("n" * 290 + "/model.pdparams", WEIGHTS, {})),
    "windows names": lambda: _zip(("..\\..\\model.pdparams", WEIGHTS, 0)),
}


@pytest.fixture
def cage(tmp_path):
    """A folder two levels down; whatever appears above it came out of an archive."""
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    return folder


def _outside(cage):
    root = cage.parent.parent
    return sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file() or p.is_symlink())


@pytest.mark.parametrize("name", REFUSED)
def test_refused_at_a_bounded_price(cage, name):
    content, says = REFUSED[name]
    (cage / "archive").write_bytes(content())
    began = time.monotonic()
    tracemalloc.start()
    try:
        with pytest.raises(DownloadError, match=says):
            archives.extract_weights(cage / "archive", cage / "out", MAX_BYTES)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16 << 20 and time.monotonic() - began < 20
    assert set(_outside(cage)) <= {"a/b/archive", "a/b/out"}
    assert not (cage / "out").exists() or (cage / "out").stat().st_size <= MAX_BYTES


@pytest.mark.parametrize("name", KEPT)
def test_names_in_an_archive_lead_nowhere(cage, name):
    (cage / "archive").write_bytes(KEPT[name]())
    archives.extract_weights(cage / "archive", cage / "out", MAX_BYTES)
    assert (cage / "out").read_bytes() == WEIGHTS
    assert _outside(cage) == ["a/b/archive", "a/b/out"]


def test_pax_names_are_read_and_the_last_of_a_kind_counts(cage):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as bundle:
        info = tarfile.TarInfo("目录/" + "x" * 200 + "/model.pdparams")
        info.size = len(WEIGHTS)
        bundle.addfile(info, io.BytesIO(WEIGHTS))
    (cage / "archive").write_bytes(stream.getvalue())
    archives.extract_weights(cage / "archive", cage / "out", MAX_BYTES)
    assert (cage / "out").read_bytes() == WEIGHTS
