# SPDX-License-Identifier: Apache-2.0
"""Datasets as they come: 45 things that are wrong or odd, each refused with file and value or read as documented.

Every case starts from two whole pairs, `a0 b0` and `a1 b1`, and spoils the second one or the list.
"""

import io
import logging
import os
import struct
import zlib

from paddle_dnl.data.checking.check import check_dataset
from paddle_dnl.data.datasets import Dataset
from paddle_dnl.errors import DataError

import numpy as np
import pytest
from PIL import Image

H, W = 12, 16
IMAGE, LABEL = "a1.png", "b1.png"
GOOD = np.random.default_rng(5).integers(0, 256, (H, W, 3), np.uint8)
SLOPE = np.arange(H * W * 3, dtype=np.float32).reshape(H, W, 3)
SLOPE = (SLOPE / SLOPE.max() * 255).astype(np.uint8)  # survives JPEG
CLASSES = np.random.default_rng(6).integers(0, 3, (H, W)).astype(np.uint8)


def _save(root, name, array, **options):
    picture = array if isinstance(array, Image.Image) else Image.fromarray(array)
    picture.save(root / name, **options)


def _write(root, name, content: bytes):
    (root / name).write_bytes(content)


def _list(root, text):
    _write(root, "train.txt", text if isinstance(text, bytes) else text.encode())


def _cut(root, name, share):
    whole = (root / name).read_bytes()
    _write(root, name, whole[: int(len(whole) * share)])


def _as_jpeg(root, picture=None, **options):
    """The second image as a large JPEG, with a label of its size."""
    smooth = np.linspace(0, 255, 64 * 64 * 3).reshape(64, 64, 3).astype(np.uint8)
    _save(root, "a1.jpg", smooth if picture is None else picture, format="JPEG", **options)
    size = Image.open(root / "a1.jpg").size[::-1]
    _save(root, LABEL, np.ones(size, np.uint8))
    _list(root, "a0.png b0.png\na1.jpg b1.png\n")


def _flip_png(root, name):
    """A flipped bit in the packed pixels, with the chunk's own checksum made to fit."""
    data = bytearray((root / name).read_bytes())
    at = data.index(b"IDAT")
    length = struct.unpack(">I", data[at - 4 : at])[0]
    data[at + 4 + length // 2] ^= 16
    data[at + 4 + length : at + 8 + length] = struct.pack(">I", zlib.crc32(data[at : at + 4 + length]))
    _write(root, name, bytes(data))


def _label_with(value):
    def spoil(root):
        label = CLASSES.copy()
        label[0, :3] = value
        _save(root, LABEL, label)

    return spoil


def _replace(name, make):
    def spoil(root):
        os.remove(root / name)
        make(root / name)

    return spoil


def _png_of_claimed_size(width, height) -> bytes:
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    packed = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def _loop(path):
    path.symlink_to(path.name)


REFUSED = {
    "image missing": (lambda r: os.remove(r / IMAGE), "a1.png: cannot be read"),
    "label missing": (lambda r: os.remove(r / LABEL), "b1.png: cannot be read"),
    "image of 0 bytes": (lambda r: _write(r, IMAGE, b""), r"a1.png: is empty \(0 bytes\)"),
    "label of 0 bytes": (lambda r: _write(r, LABEL, b""), r"b1.png: is empty \(0 bytes\)"),
    "image PNG cut": (lambda r: _cut(r, IMAGE, 0.7), "a1.png: is not a readable image"),
    "label PNG cut": (lambda r: _cut(r, LABEL, 0.6), "b1.png: is not a readable label"),
    "image JPEG cut": (lambda r: (_as_jpeg(r), _cut(r, "a1.jpg", 0.95)), "a1.jpg: is (not a readable image|a damaged JPEG)"),
    "image PNG with a flipped bit": (lambda r: _flip_png(r, IMAGE), "a1.png: is (not a readable|a damaged)"),
    "label PNG with a flipped bit": (lambda r: _flip_png(r, LABEL), "b1.png: is not a readable label"),
    "image is a web page": (lambda r: _write(r, IMAGE, b"<html>404</html>"), "a1.png: is not a readable image"),
    "label is text": (lambda r: _write(r, LABEL, b"1 2 3"), "b1.png: is not a readable label"),
    "label of 10^10 pixels": (lambda r: _write(r, LABEL, _png_of_claimed_size(100_000, 100_000)), "b1.png: .*exceeds limit"),
    "image of 10^10 pixels": (lambda r: _write(r, IMAGE, _png_of_claimed_size(100_000, 100_000)), "a1.png: "),
    "label in colours": (lambda r: _save(r, LABEL, GOOD), "b1.png: has 3 channels"),
    "label with alpha": (lambda r: _save(r, LABEL, np.zeros((H, W, 4), np.uint8)), "b1.png: has 4 channels"),
    "label grey with alpha": (lambda r: _save(r, LABEL, Image.new("LA", (W, H))), "b1.png: has 2 channels"),
    "label as JPEG": (lambda r: _save(r, LABEL, CLASSES, format="JPEG"), "b1.png: is a JPEG, which changes class numbers"),
    "label with fractions": (lambda r: _save(r, LABEL, Image.new("F", (W, H)), format="TIFF"), "b1.png: holds float32"),
    "label below zero": (lambda r: _save(r, LABEL, Image.new("I", (W, H), -1), format="TIFF"), "b1.png: holds -1"),
    "label 19": (_label_with(19), r"b1.png: holds 19 \(3 pixels\); labels must be 0 to 2, or 255"),
    "label 89": (_label_with(89), "b1.png: holds 89"),
    "label 254": (_label_with(254), "b1.png: holds 254"),
    "label of 16 bits": (lambda r: _save(r, LABEL, CLASSES.astype(np.uint16) + 300), "b1.png: holds 300, 301, 302"),
    "sizes differ": (lambda r: _save(r, LABEL, CLASSES[:, :-1]), "b1.png: is 15x12, its image .*a1.png is 16x12"),
    "sizes exchanged": (lambda r: _save(r, LABEL, CLASSES.T.copy()), "b1.png: is 12x16, its image .*a1.png is 16x12"),
    "image and label exchanged": (lambda r: _list(r, "b0.png a0.png\n"), "a0.png: has 3 channels"),
    "symlink loop": (_replace(IMAGE, _loop), "a1.png: cannot be read .*symbolic links"),
    "symlink to nothing": (_replace(LABEL, lambda p: p.symlink_to("gone.png")), "b1.png: cannot be read"),
    "folder": (_replace(IMAGE, lambda p: p.mkdir()), "a1.png: is a folder, pipe or device"),
    "pipe": (_replace(IMAGE, os.mkfifo), "a1.png: is a folder, pipe or device"),
    "device": (_replace(LABEL, lambda p: p.symlink_to("/dev/zero")), "b1.png: is a folder, pipe or device"),
    "list missing": (lambda r: os.remove(r / "train.txt"), "train.txt: cannot be read"),
    "list empty": (lambda r: _list(r, ""), "train.txt: lists no files"),
    "list of blank lines": (lambda r: _list(r, "\n \n\t\r\n"), "train.txt: lists no files"),
    "list in UTF-16": (lambda r: _write(r, "train.txt", "a0.png b0.png\n".encode("utf-16")), "train.txt, line 1: .*UTF-8"),
    "list is a picture": (lambda r: _write(r, "train.txt", (r / IMAGE).read_bytes()), "train.txt, line [0-9]+"),
    "line without a label": (lambda r: _list(r, "a0.png b0.png\na1.png\n"), "train.txt, line 2: expected"),
    "line of three names": (lambda r: _list(r, "a0.png b0.png\na1.png b1.png c1.png\n"), "train.txt, line 2: expected"),
    "name of 5,000 letters": (lambda r: _list(r, f"{'n' * 5000}.png,b0.png\n"), "cannot be read .*too long"),
    "one image with two labels": (
        lambda r: _list(r, "a0.png b0.png\na0.png b1.png\n"), "a0.png is listed with two labels, .*b0.png and .*b1.png"),
}  # fmt: skip


def _names(root, image, label):
    os.makedirs((root / image).parent, exist_ok=True)
    os.rename(root / IMAGE, root / image)
    os.rename(root / LABEL, root / label)


def _gbk(root):
    image, label = "图一.png".encode("gbk"), "标签.png".encode("gbk")
    folder = os.fsencode(root) + b"/"
    os.rename(folder + IMAGE.encode(), folder + image)
    os.rename(folder + LABEL.encode(), folder + label)
    _list(root, b"a0.png b0.png\n" + image + b" " + label + b"\n")


def _exif(root):
    """A picture that was taken with the camera on its side: stored lying, shown standing."""
    picture = Image.fromarray(SLOPE)
    exif = picture.getexif()
    exif[0x0112] = 6
    _as_jpeg(root, picture, exif=exif, quality=95)
    _save(root, LABEL, CLASSES.T.copy())


def _palette(root):
    picture = Image.fromarray(CLASSES)
    picture.putpalette([200, 10, 10, 10, 200, 10, 10, 10, 200])
    _save(root, LABEL, picture)


def _bits16(root):
    raw = io.BytesIO()
    Image.fromarray(GOOD[..., 0].astype(np.uint16) * 257).save(raw, "PNG")
    _write(root, IMAGE, raw.getvalue())


# What is read, and what the second sample must then be: (mean of an image channel or None, label or None).
HANDLED = {
    "image CMYK": (lambda r: _as_jpeg(r, Image.new("CMYK", (40, 30), (0, 255, 255, 0))), "red"),
    "image of 16 bits": (_bits16, GOOD[..., [0, 0, 0]]),
    "image with alpha": (lambda r: _save(r, IMAGE, np.dstack([GOOD, np.zeros((H, W), np.uint8)])), GOOD),
    "image grey": (lambda r: _save(r, IMAGE, GOOD[..., 1]), GOOD[..., [1, 1, 1]]),
    "image on its side": (_exif, "standing"),
    "label with a palette": (_palette, None),
    "label of two values": (lambda r: _save(r, LABEL, Image.fromarray(CLASSES > 1)), "two"),
    "label all ignored": (lambda r: _save(r, LABEL, np.full((H, W), 255, np.uint8)), "ignored"),
    "blanks in names": (lambda r: (_names(r, "my a.png", "my b.png"), _list(r, "a0.png,b0.png\nmy a.png,my b.png\n")), None),
    "comma in names": (lambda r: (_names(r, "a,1.png", "b,1.png"), _list(r, "a0.png b0.png\na,1.png b,1.png\n")), None),
    "windows path": (lambda r: (_names(r, "d/a.png", "d/b.png"), _list(r, "a0.png b0.png\nd\\a.png d\\b.png\n")), None),
    "path with ..": (lambda r: _list(r, "a0.png b0.png\n../data/a1.png ../data/b1.png\n"), None),
    "names in GBK": (_gbk, None),
    "names in UTF-8": (lambda r: (_names(r, "ä模.png", "é型.png"), _list(r, "a0.png b0.png\nä模.png é型.png\n")), None),
    "blank lines": (lambda r: _list(r, "\n\na0.png b0.png\n\n  a1.png b1.png  \n\n"), None),
    "CRLF and byte order mark": (lambda r: _list(r, b"\xef\xbb\xbfa0.png b0.png\r\na1.png b1.png\r\n"), None),
    "tabs": (lambda r: _list(r, "a0.png\tb0.png\na1.png\tb1.png"), None),
    "symlinks": (lambda r: (_names(r, "x.png", "y.png"), (r / IMAGE).symlink_to("x.png"), (r / LABEL).symlink_to("y.png")), None),
}  # fmt: skip


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    for i in range(2):
        _save(folder, f"a{i}.png", GOOD)
        _save(folder, f"b{i}.png", CLASSES)
    _list(folder, "a0.png b0.png\na1.png b1.png\n")
    return folder


def _load(root, **more):
    dataset = Dataset("train", str(root), [], 3, train_path=str(root / "train.txt"))
    skipped = check_dataset(dataset, "train_dataset", root.parent / "cache", **more)
    return dataset, skipped


@pytest.mark.parametrize("name", REFUSED)
def test_refused_before_training_with_file_and_value(root, name):
    spoil, says = REFUSED[name]
    spoil(root)
    with pytest.raises(DataError, match=says):
        _load(root)
    assert not list((root.parent / "cache").glob("*.json")), "noted as whole"


@pytest.mark.parametrize("name", HANDLED)
def test_read_as_documented(root, name):
    spoil, expected = HANDLED[name]
    spoil(root)
    dataset, skipped = _load(root)
    assert (len(dataset), skipped) == (2, 0)
    sample = dataset[1]
    image, label = sample["img"], sample["label"]
    assert image.shape[1:] == label.shape
    if isinstance(expected, str):
        expect_special(expected, image, label)
    else:
        np.testing.assert_array_equal(label, CLASSES)
        np.testing.assert_array_equal(image, (GOOD if expected is None else expected).transpose(2, 0, 1))


def expect_special(expected, image, label):
    """The cases whose picture is not the good one bit for bit."""
    if expected == "red":
        red, green, blue = image.mean((1, 2))
        assert red > 200 and green < 60 and blue < 60
    elif expected == "standing":
        assert image.shape == (3, W, H)
        assert np.abs(image - np.rot90(SLOPE, -1).transpose(2, 0, 1)).mean() < 3
    elif expected == "two":
        np.testing.assert_array_equal(label, CLASSES > 1)
    else:
        assert (label == 255).all()


def test_there_are_at_least_45():
    assert len(REFUSED) + len(HANDLED) >= 45


def test_entries_listed_twice_are_said(root, caplog):
    _list(root, "a0.png b0.png\na1.png b1.png\na0.png b0.png\n")
    with caplog.at_level(logging.WARNING, "paddle_dnl"):
        assert len(_load(root)[0]) == 3
    assert "1 entries are listed more than once, first" in caplog.text


SKIPPED = ("image missing", "label of 0 bytes", "image JPEG cut", "label 89", "sizes differ", "pipe", "symlink loop")


@pytest.mark.parametrize("name", SKIPPED)
def test_skipping_counts_and_lists(root, name, caplog):
    REFUSED[name][0](root)
    with caplog.at_level(logging.WARNING, "paddle_dnl"):
        dataset, skipped = _load(root, skip_bad=True)
    assert skipped == 1 and [os.path.basename(image) for image, _ in dataset.file_list] == ["a0.png"]
    assert "skipped 1 of 2 samples" in caplog.text and "train_dataset: skipped: " in caplog.text
    assert not list((root.parent / "cache").glob("*.json")), "noted as whole"
    with pytest.raises(DataError):
        _load(root)


def test_nothing_left_is_refused(root):
    for i in range(2):
        _write(root, f"a{i}.png", b"")
    with pytest.raises(DataError, match="2 of 2 samples cannot be used"):
        _load(root, skip_bad=True)


def test_training_goes_on_without_bad_samples(tmp_path, caplog):
    from tiny_training import train, write_config

    write_config(tmp_path)
    (tmp_path / "data" / "image_3.png").write_bytes(b"")
    with pytest.raises(DataError, match="image_3.png: is empty"):
        train(tmp_path, ["iters=2"])
    with caplog.at_level(logging.WARNING, "paddle_dnl"):
        assert train(tmp_path, ["iters=2"], skip_bad_samples=True).iteration == 2
    assert "train_dataset: skipped 1 of 8 samples" in caplog.text and "image_3.png: is empty" in caplog.text
