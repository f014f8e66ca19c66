# SPDX-License-Identifier: Apache-2.0
"""The check of outputs: never an input, never a file that we did not write."""

import os
import threading

from paddle_dnl.errors import OutputError
from paddle_dnl.files import outputs
from paddle_dnl.files.atomic import write_bytes, write_text
from paddle_dnl.files.outputs import JOURNAL, check_outputs, is_ours

import pytest


def test_a_program_may_run_again_into_its_own_folder(tmp_path):
    for content in (b"first", b"second", b"first"):
        check_outputs([tmp_path / "out" / "sub" / "a.png"], [], root=tmp_path / "out")
        write_bytes(tmp_path / "out" / "sub" / "a.png", content)
    assert (tmp_path / "out" / "sub" / "a.png").read_bytes() == b"first"
    assert [path.parent.name for path in tmp_path.rglob(JOURNAL)] == ["out"]
    assert len((tmp_path / "out" / JOURNAL).read_text().splitlines()) == 2


@pytest.mark.parametrize("how", ["foreign", "edited", "link", "dangling link", "damaged journal"])
def test_what_is_not_ours_is_kept(tmp_path, how):
    path = tmp_path / "a.png"
    write_bytes(path, b"ours")
    if how == "foreign":
        (tmp_path / JOURNAL).unlink()
    elif how == "edited":
        path.write_bytes(b"ours, corrected by hand")
    elif how == "damaged journal":
        (tmp_path / JOURNAL).write_bytes(b"\xff\0\n" + (tmp_path / JOURNAL).read_bytes()[:70])
    else:
        path.unlink()
        (tmp_path / "target.png").write_bytes(b"theirs")
        path.symlink_to(tmp_path / ("target.png" if how == "link" else "nothing.png"))
    before = {p: p.read_bytes() for p in tmp_path.iterdir() if p.is_file() and p.name != JOURNAL}
    for write in (lambda: write_bytes(path, b"new"), lambda: check_outputs([path], [])):
        with pytest.raises(OutputError, match="a.png: exists and was not written by this program, or was changed"):
            write()
    assert {p: p.read_bytes() for p in tmp_path.iterdir() if p.is_file() and p.name != JOURNAL} == before


def test_the_same_content_is_no_conflict_and_makes_the_file_not_ours(tmp_path):
    (tmp_path / "train.txt").write_text("a.png\n")
    write_text(tmp_path / "train.txt", "a.png\n")
    assert not is_ours(tmp_path / "train.txt")


def test_replacement_that_the_user_asked_for(tmp_path):
    (tmp_path / "a").write_bytes(b"theirs")
    write_bytes(tmp_path / "a", b"new", replace=True)
    assert (tmp_path / "a").read_bytes() == b"new" and is_ours(tmp_path / "a")


@pytest.mark.parametrize("way", ["same", "dots", "folder link", "file link", "hard link"])
def test_an_input_is_not_overwritten_by_any_name(tmp_path, way):
    read = tmp_path / "in" / "a.png"
    write_bytes(read, b"picture")  # ours, so that only the comparison with inputs protects it
    output = read
    if way == "dots":
        output = tmp_path / "in" / ".." / "in" / "a.png"
    elif way == "folder link":
        (tmp_path / "link").symlink_to(tmp_path / "in")
        output = tmp_path / "link" / "a.png"
    elif way != "same":
        output = tmp_path / "b.png"
        output.symlink_to(read) if way == "file link" else os.link(read, output)
    with pytest.raises(OutputError, match="would be overwritten, and is an input"):
        check_outputs([tmp_path / "other.png", output], [None, tmp_path / "missing", read])


def test_odd_names(tmp_path):
    for name in ("späße 图.png", "a\nb.png", os.fsdecode(b"\xff\xfe.png"), '".png', "\\.png"):
        for content in (b"1", b"2"):
            write_bytes(tmp_path / name, content)
        assert is_ours(tmp_path / name)


def test_a_journal_above_that_cannot_be_written_is_passed_over(tmp_path, monkeypatch):
    write_bytes(tmp_path / "data" / "train.txt", b"1")
    add = outputs._Journal.add

    def refused(self, *args):
        if self.path.parent == tmp_path / "data":
            raise PermissionError(13, "Permission denied", str(self.path))
        add(self, *args)

    monkeypatch.setattr(outputs._Journal, "add", refused)
    for content in (b"1", b"2"):
        write_bytes(tmp_path / "data" / "results" / "a", content)
    assert (tmp_path / "data" / "results" / JOURNAL).is_file()


def test_a_line_cut_off_by_a_kill_spoils_no_other(tmp_path):
    write_bytes(tmp_path / "a", b"1")
    with open(tmp_path / JOURNAL, "ab") as file:
        file.write(b'0123 "cut')
    write_bytes(tmp_path / "b", b"1")
    write_bytes(tmp_path / "b", b"2")
    write_bytes(tmp_path / "a", b"2")


def test_threads_write_one_journal(tmp_path):
    def work(number):
        for i in range(50):
            write_bytes(tmp_path / f"{number}_{i}", f"{number} {i}".encode())

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len((tmp_path / JOURNAL).read_text().splitlines()) == 200
    assert all(is_ours(tmp_path / f"{number}_{i}") for number in range(4) for i in range(50))
