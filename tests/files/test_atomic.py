# SPDX-License-Identifier: Apache-2.0
"""Atomic writes: whole or not there, the umask's permissions, nothing left after a failure, and only our folders are tidied."""

import errno
import json
import os
from pathlib import Path

from paddle_dnl.errors import OutputError
from paddle_dnl.files import atomic
from paddle_dnl.files.atomic import MARKER, make_temporary, new_file, put_in_place, recover, remove_folder, write_bytes
from paddle_dnl.files.outputs import JOURNAL

import pytest


def _visible(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != JOURNAL)


@pytest.mark.parametrize("umask,mode", [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_follow_the_umask(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        write_bytes(tmp_path / "a", b"1")
        folder = make_temporary(tmp_path / "folder")
        put_in_place(folder, tmp_path / "folder")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == mode
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o777 & ~umask


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), ValueError("x"), KeyboardInterrupt(), SystemExit(3)])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, error):
    write_bytes(tmp_path / "a.bin", b"old")
    with pytest.raises(type(error)), new_file(tmp_path / "a.bin") as temporary:
        temporary.write_bytes(b"half")
        raise error
    assert (tmp_path / "a.bin").read_bytes() == b"old" and _visible(tmp_path) == ["a.bin"]


def test_errors_name_the_file_and_not_the_temporary_one(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(OSError) as raised:
        write_bytes(tmp_path / "a.png", b"1")
    assert raised.value.errno == errno.ENOSPC and raised.value.filename == str(tmp_path / "a.png")
    assert _visible(tmp_path) == []


def test_a_native_writer_that_hides_a_full_disk_is_seen_through(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic.problems, "is_full", lambda path: True)
    with pytest.raises(OSError) as raised, new_file(tmp_path / "a"):
        raise RuntimeError("write failed")
    assert raised.value.errno == errno.ENOSPC


def test_the_longest_name_that_the_system_takes(tmp_path):
    write_bytes(tmp_path / ("n" * 251 + ".png"), b"1")
    with pytest.raises(OSError) as raised:
        write_bytes(tmp_path / ("n" * 300 + ".png"), b"1")
    assert raised.value.errno == errno.ENAMETOOLONG and "nnn.png" in raised.value.filename


def test_only_our_own_folders_are_tidied(tmp_path):
    (tmp_path / ".tmp-empty").mkdir()
    for name in (".tmp-theirs", ".old-iter_5", ".tmp-0123456789ab"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "thesis.txt").write_text("years of work")
    (tmp_path / ".tmp-file").write_text("theirs")
    (make_temporary(tmp_path / "iter_7") / "model.pdparams").write_bytes(b"half")
    before = {path for path in tmp_path.iterdir() if not (path / MARKER).is_file()}
    recover(tmp_path)
    assert set(tmp_path.iterdir()) == before and len(before) == 5


def test_a_folder_that_a_full_disk_does_not_take_is_named_and_leaves_nothing(tmp_path, monkeypatch):
    """A failed write says no name by itself."""

    def full(path, *_, **__):
        path.touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError) as raised:
        make_temporary(tmp_path / "iter_5")
    assert raised.value.errno == errno.ENOSPC and raised.value.filename == str(tmp_path / "iter_5")
    assert not list(tmp_path.iterdir())


def test_other_files_in_a_replaced_or_removed_folder_stay(tmp_path):
    final = tmp_path / "iter_5"
    final.mkdir()
    for name in ("ours", "ema", "notes.txt"):
        (final / name).write_text("old")
    temporary = make_temporary(final, ["ours", "ema"])
    (temporary / "ours").write_text("new")
    put_in_place(temporary, final)
    assert {path.name: path.read_text() for path in final.iterdir()} == {"ours": "new", "notes.txt": "old"}
    remove_folder(final, ["ours", "ema"])
    assert _visible(tmp_path) == ["iter_5"] and _visible(final) == ["notes.txt"]


def test_a_kill_after_the_second_rename_loses_no_other_file(tmp_path):
    workspace = make_temporary(tmp_path / "iter_5", ["ours"]).parent
    (workspace / "old").mkdir()
    for name in ("ours", "notes.txt"):
        (workspace / "old" / name).write_text("old")
    (tmp_path / "iter_5").mkdir()
    recover(tmp_path)
    assert _visible(tmp_path) == ["iter_5"] and _visible(tmp_path / "iter_5") == ["notes.txt"]


@pytest.mark.parametrize("name", ["../elsewhere", "", 3, "/tmp/elsewhere"])
def test_a_marker_leads_nowhere_else(tmp_path, name):
    (tmp_path / "inner").mkdir()
    workspace = make_temporary(tmp_path / "inner" / "x").parent
    (workspace / MARKER).write_text(json.dumps([name]))
    (workspace / "old").mkdir()
    recover(tmp_path / "inner")
    assert _visible(tmp_path) == ["inner"] and _visible(tmp_path / "inner") == []


def test_a_folder_is_not_replaced_by_a_file(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(OutputError, match="a: is a folder"):
        write_bytes(tmp_path / "a", b"1")
