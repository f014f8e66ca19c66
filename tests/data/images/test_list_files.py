# SPDX-License-Identifier: Apache-2.0
"""One parser of list files: the same odd lists are read by datasets, by predict and infer, and by quantize and export."""

import os

from paddle_dnl.data.images.image_files import find_images, find_pairs
from paddle_dnl.data.images.list_files import lines, pairs_of, read_image_set, read_list
from paddle_dnl.errors import DataError

import pytest

IMAGE, LABEL = b"my street.png", "路 1.png".encode()
LATIN = b"stra\xdfe.png"  # Latin-1, as some archives unpack it

CASES = {
    "plain": (b"a.png l.png\nb.png m.png\n", [(b"a.png", b"l.png"), (b"b.png", b"m.png")]),
    "byte order mark": (b"\xef\xbb\xbfa.png l.png\n", [(b"a.png", b"l.png")]),
    "CRLF, blank lines": (b"a.png\tl.png\r\n\r\n \t\r\nb.png,m.png", [(b"a.png", b"l.png"), (b"b.png", b"m.png")]),
    "CR alone": (b"a.png l.png\rb.png m.png\r", [(b"a.png", b"l.png"), (b"b.png", b"m.png")]),
    "blanks in names": (IMAGE + b"\t" + LABEL + b"\n", [(IMAGE, LABEL)]),
    "a comma, and blanks in names": (IMAGE + b", " + LABEL + b"\n", [(IMAGE, LABEL)]),
    "two separators that each make two names": (b"a b.png\tl.png\n", [(b"a b.png", b"l.png")]),
    "not UTF-8": (LATIN + b" l.png\n", [(LATIN, b"l.png")]),
    "backslashes of Windows": (b"sub\\c.png sub\\d.png\n", [(b"sub/c.png", b"sub/d.png")]),
}  # fmt: skip


@pytest.mark.parametrize("content, expected", CASES.values(), ids=CASES)
def test_every_reader_understands_the_same_lists(content, expected, tmp_path):
    (tmp_path / "sub").mkdir()
    for pair in expected:
        for name in pair:
            with open(os.path.join(os.fsencode(tmp_path), name), "wb"):
                pass
    listed = tmp_path / "list.txt"
    listed.write_bytes(content)
    pairs = [tuple(tmp_path / os.fsdecode(name) for name in pair) for pair in expected]
    assert read_list(listed, tmp_path) == pairs
    assert find_pairs(listed) == pairs
    images = [pair[0] for pair in pairs]
    assert find_images(listed) == [(image, image.relative_to(tmp_path)) for image in images]
    for _, label in pairs:  # programs that want images only do not look at labels
        label.unlink()
    assert [image for image, _ in find_images(listed)] == images
    with pytest.raises(DataError, match="no such label picture"):
        find_pairs(listed)


def test_one_spelling_of_a_path(tmp_path):
    """As `pathlib` spells it, so that an image that is listed twice is found."""
    (tmp_path / "list.txt").write_text("./a.png b//l.png\na.png ./b/./l.png\na.png b/l.png\n.a.png b/.l.png\n")
    image, label = (str(tmp_path / name) for name in ("a.png", "b/l.png"))
    hidden = str(tmp_path / ".a.png"), str(tmp_path / "b/.l.png")
    assert list(pairs_of(tmp_path / "list.txt", tmp_path)) == [(image, label)] * 3 + [hidden]


def test_a_line_may_be_an_image_alone(tmp_path):
    (tmp_path / "my street.png").touch()
    (tmp_path / "list.txt").write_text("my street.png\n")
    assert find_pairs(tmp_path / "list.txt") == [(tmp_path / "my street.png", None)]
    assert find_images(tmp_path / "list.txt")[0][0] == tmp_path / "my street.png"
    (tmp_path / "list.txt").write_text("gone.png\n")
    for read in (find_pairs, find_images):
        with pytest.raises(DataError, match="list.txt: '.*gone.png' names no"):
            read(tmp_path / "list.txt")


def test_what_is_no_list(tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes("a.png l.png\n".encode("utf-16"))
    for read in (find_pairs, find_images, lambda p: read_list(p, tmp_path), read_image_set):
        with pytest.raises(DataError, match="list.txt, line 1: holds zero bytes"):
            read(path)
    with pytest.raises(DataError, match="gone.txt: cannot be read"):
        list(lines(tmp_path / "gone.txt"))


def test_image_sets(tmp_path):
    path = tmp_path / "train.txt"
    path.write_bytes(b"\xef\xbb\xbf2007_000032\r\n2007_000039 \n")
    assert read_image_set(path) == ["2007_000032", "2007_000039"]
    path.write_text("\n")
    with pytest.raises(DataError, match="lists no images"):
        read_image_set(path)
    with pytest.raises(DataError, match="gone.txt: no such image set; is this a VOCdevkit folder?"):
        read_image_set(tmp_path / "gone.txt", "is this a VOCdevkit folder?")
