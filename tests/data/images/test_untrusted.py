# SPDX-License-Identifier: Apache-2.0
"""Bounds on picture files of strangers: costly structures are refused by their header, ordinary ones pass."""

import time

from paddle_dnl.data.images.image_format import ImageFormat, decode_image
from paddle_dnl.data.images.untrusted import TooLarge, UnknownFormat, require_bounded
from paddle_dnl.errors import DataError

import cv2
import numpy as np
import pytest
from costly_pictures import encoded, many_chunks, many_scans, tiff_header

COSTLY = {
    "3000 scans": (many_scans(3000), DataError, "300"),
    "a million chunks": (many_chunks(1_000_000), DataError, "chunks"),
    "a giant tile": (tiff_header(64, 64, 16_000), DataError, "tiles of 256000000"),
    "pam": (b"P7\nWIDTH 30000\nHEIGHT 30000\nDEPTH 3\nMAXVAL 255\nENDHDR\n", UnknownFormat, "known format"),
    "pbm": (b"P4\n30000 30000\n", UnknownFormat, "known format"),
    "too many pixels": (tiff_header(30_000, 30_000, 256), TooLarge, "900000000 pixels"),
}


@pytest.mark.parametrize("what", COSTLY)
def test_costly_pictures_are_refused_by_their_header(what, monkeypatch):
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    content, error, text = COSTLY[what]
    began = time.process_time()
    with pytest.raises(error, match=text):
        decode_image(np.frombuffer(content, np.uint8), "a.jpg", max_pixels=25_000_000)
    assert time.process_time() - began < 1


def test_ordinary_structures_pass():
    for content in (many_scans(20), many_chunks(500), encoded(".tiff"), encoded(".webp"), encoded(".bmp")):
        assert require_bounded(content, "a", 10_000) == (64, 32)


def test_a_decoder_that_finds_another_size_than_the_header_is_not_believed(monkeypatch):
    monkeypatch.setattr(cv2, "imdecode", lambda *_: np.zeros((99, 64, 3), np.uint8))
    with pytest.raises(DataError, match="64x99 after decoding, its header says 64x32"):
        decode_image(np.frombuffer(encoded(), np.uint8), "a.png", max_pixels=10_000)


@pytest.mark.parametrize("ending", ImageFormat().endings)
def test_every_listed_format_is_read_within_limits(tmp_path, ending):
    """As infer.py and the service read, and as predict.py does."""
    image = np.random.default_rng(0).integers(0, 256, (6, 8) if ending == ".pgm" else (6, 8, 3), np.uint8)
    path = tmp_path / f"a{ending}"
    assert cv2.imwrite(str(path), image)
    read = ImageFormat().read(path, max_pixels=100)
    np.testing.assert_array_equal(read, ImageFormat().read(path))
    assert read.shape == (6, 8, 3)
    with pytest.raises(TooLarge, match="8x6 = 48 pixels"):
        ImageFormat().read(path, max_pixels=40)


@pytest.mark.parametrize("text", [b"P2\n# grey\n2 1\n255\n7 200\n", b"P3 2 1 255 7 7 7 200 200 200\n"])
def test_portable_pixmaps_as_text(text):
    read = decode_image(np.frombuffer(text, np.uint8), "a.ppm", max_pixels=100)
    np.testing.assert_array_equal(read, np.uint8([[[7] * 3, [200] * 3]]))
