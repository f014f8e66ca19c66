# SPDX-License-Identifier: Apache-2.0
"""Pictures as they come: odd formats are read right, damaged and huge ones are refused by name."""

import io
import struct
import zlib

from paddle_dnl.cli.infer import main, parse_args
from paddle_dnl.deployment.runtime.predictor import Predictor
from paddle_dnl.errors import DataError, UsageError

import cv2
import numpy as np
import pytest
from PIL import Image
from tiny_export import blocks, logits_of


@pytest.fixture(scope="module")
def predictor(exported):
    return Predictor(exported)


def _encoded(image, suffix):
    return cv2.imencode(suffix, image)[1].tobytes()


def _pillow(image_bgr, mode, format_name, **more):
    buffer = io.BytesIO()
    Image.fromarray(image_bgr[..., ::-1]).convert(mode).save(buffer, format_name, **more)
    return buffer.getvalue()


def _sixteen_bit(image):
    return _encoded(image.astype(np.uint16) * 257, ".png")


def _alpha(image):
    alpha = np.random.default_rng(0).integers(0, 256, (*image.shape[:2], 1), dtype=np.uint8)
    return _encoded(np.concatenate([image, alpha], axis=2), ".png")


@pytest.mark.parametrize(
    "encode, agreement",
    [
        (lambda image: _pillow(image, "CMYK", "JPEG", quality=95), 0.98),
        (lambda image: _pillow(image, "CMYK", "TIFF"), 1),
        (lambda image: _pillow(image, "P", "PNG", palette=Image.Palette.ADAPTIVE), 1),
        (_sixteen_bit, 1),
        (_alpha, 1),
        (lambda image: _encoded(image, ".webp"), 0.98),
        (lambda image: _encoded(image, ".bmp"), 1),
    ],
    ids=["CMYK JPEG", "CMYK TIFF", "palette", "16 bit", "alpha", "WebP", "BMP"],
)
def test_odd_formats_are_read_right(tmp_path, predictor, encode, agreement):
    image, label = blocks(2, 4, 16)
    (tmp_path / "odd.png").write_bytes(encode(image))
    found = predictor.predict([tmp_path / "odd.png"])[0]
    assert found.shape == label.shape and (found == label).mean() >= agreement


@pytest.mark.parametrize("bits", [8, 16])
def test_grey(tmp_path, predictor, bits):
    grey = np.random.default_rng(0).integers(0, 256, (32, 64), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "grey.png"), grey if bits == 8 else grey.astype(np.uint16) * 257)
    wanted = logits_of(np.repeat(grey[..., None], 3, axis=2)).argmax(0)
    assert (predictor.predict([tmp_path / "grey.png"])[0] == wanted).mean() > 0.999


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, predictor, orientation):
    """The label stands as a viewer shows the picture; Pillow says how that is."""
    image, _ = blocks(2, 4, 16)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "turned.jpg"
    path.write_bytes(_pillow(image, "RGB", "JPEG", quality=95, exif=exif))
    from PIL import ImageOps

    with Image.open(path) as picture:
        shown = np.array(ImageOps.exif_transpose(picture))[..., ::-1]
    wanted = logits_of(shown).argmax(0)
    found = predictor.predict([path])[0]
    assert found.shape == wanted.shape and (found == wanted).mean() > 0.95


def _photo():
    noise = np.random.default_rng(0).normal(0, 12, (96, 128, 3))
    return np.clip(blocks(3, 4, 32)[0] + noise, 0, 255).astype(np.uint8)


def _with_thumbnail(image):
    """A JPEG with a whole small JPEG in its head, as cameras write it."""
    thumbnail = _encoded(image[::4, ::4], ".jpg")
    content = _encoded(image, ".jpg")
    segment = b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    return content[:2] + segment + content[2:]


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.97])
@pytest.mark.parametrize("kind", [".png", ".jpg", ".webp", ".bmp", ".tif", "thumbnail", "progressive"])
def test_cut_off_pictures_are_refused(tmp_path, predictor, kind, kept):
    image = _photo()
    if kind == "thumbnail":
        content = _with_thumbnail(image)
    elif kind == "progressive":
        content = _pillow(image, "RGB", "JPEG", progressive=True)
    else:
        content = _encoded(image, kind)
    path = tmp_path / "cut.png"
    path.write_bytes(content)
    assert predictor.predict([path])[0].shape == (96, 128), "whole it is fine"
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(DataError, match="cut.png"):
        predictor.predict([path])


@pytest.mark.parametrize(
    "content", [b"", b"no picture", b"\xff\xd8", b"\xff\xd8\xff\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a"]
)
def test_what_is_no_picture_is_refused(tmp_path, predictor, content):
    (tmp_path / "bad.jpg").write_bytes(content)
    with pytest.raises(DataError, match="bad.jpg"):
        predictor.predict([tmp_path / "bad.jpg"])
    with pytest.raises(DataError, match="bad.jpg"):
        predictor.predict([tmp_path / "no such folder" / "bad.jpg"])
    with pytest.raises(DataError, match="is a folder"):
        predictor.predict([tmp_path])


def _huge_png(width, height):
    """A grey PNG of one value: a few kilobytes for any size."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    row = bytes(width + 1)
    data = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def test_a_hundred_megapixels_are_refused_before_they_are_decoded(tmp_path, exported, predictor, monkeypatch):
    path = tmp_path / "huge.png"
    path.write_bytes(_huge_png(10_000, 10_000))
    assert path.stat().st_size < 200_000

    def decoded(*_):
        raise AssertionError("memory was taken for the picture")

    monkeypatch.setattr("paddle_dnl.data.images.image_format.cv2.imdecode", decoded)
    with pytest.raises(
        DataError, match=r"huge.png: has 10000x10000 = 100000000 pixels, allowed are 80000000.*--max_pixels"
    ):
        predictor.predict([path])
    flags = ["--config", str(exported), "--image_path", str(path), "--save_dir", str(tmp_path / "out")]
    with pytest.raises(DataError, match="huge.png"):
        main(flags)
    assert not (tmp_path / "out").exists()
    # Pillow itself refuses to look at this one.
    path.write_bytes(_huge_png(20_000, 10_000)[:200])
    with pytest.raises(DataError, match=r"huge.png: .*200000000 pixels"):
        predictor.predict([path])


def test_the_pixel_limit_is_a_flag(tmp_path, exported):
    image, label = blocks(4, 8, 16)
    cv2.imwrite(str(tmp_path / "a.png"), image)
    flags = ["--config", str(exported), "--image_path", str(tmp_path / "a.png"), "--save_dir", str(tmp_path / "out")]
    with pytest.raises(DataError, match="has 128x64 = 8192 pixels, allowed are 8191"):
        main([*flags, "--max_pixels", "8191"])
    assert main([*flags, "--max_pixels", "8192"]) == 0
    with Image.open(tmp_path / "out" / "a.png") as found:
        np.testing.assert_array_equal(np.array(found), label)
    with pytest.raises(UsageError, match="--max_pixels must be at least 1"):
        parse_args([*flags, "--max_pixels", "0"])
    np.testing.assert_array_equal(Predictor(exported, max_pixels=None).predict([tmp_path / "a.png"])[0], label)


def test_other_sizes_are_refused_when_asked_for(tmp_path, exported):
    for name, size in (("right.png", 8), ("wrong.png", 16)):
        cv2.imwrite(str(tmp_path / name), blocks(4, 8, size)[0])
    flags = ["--config", str(exported), "--save_dir", str(tmp_path / "out"), "--wrong_size", "refuse", "--image_path"]
    assert main([*flags, str(tmp_path / "right.png")]) == 0
    with pytest.raises(DataError, match=r"wrong.png: is 128x64 after Deploy.transforms, this model takes 64x32"):
        main([*flags, str(tmp_path / "wrong.png")])
    with pytest.raises(DataError, match="wrong.png"):
        Predictor(exported, wrong_size="refuse").predict([tmp_path / "wrong.png"])
    with pytest.raises(UsageError, match="wrong_size 'crop' is not one of resize, refuse"):
        Predictor(exported, wrong_size="crop")
