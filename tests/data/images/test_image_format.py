# SPDX-License-Identifier: Apache-2.0
"""Pictures of any depth and number of bands: what is read, on which scale, and what is refused."""

import logging
import struct
import time

import paddle_dnl  # noqa: F401
from paddle_dnl.data.images import bands
from paddle_dnl.data.images.block_rows import open_rows
from paddle_dnl.data.images.image_format import ImageFormat, read_as_stored
from paddle_dnl.data.images.untrusted import TooLarge
from paddle_dnl.data.overlay import displayed, overlay
from paddle_dnl.data.transforms import Compose
from paddle_dnl.errors import DataError
from paddle_dnl.registry import TRANSFORMS

import cv2
import numpy as np
import pytest
import tifffile

RNG = np.random.default_rng(0)
LOW, HIGH = 64.0, 4095.0


def _write(path, array, **options):
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".png":
        assert cv2.imwrite(str(path), array[..., ::-1] if array.ndim == 3 and array.shape[2] == 3 else array)
    else:
        tifffile.imwrite(path, array, **options)
    return path


def _wanted(array):
    """float64, red first."""
    return (array.astype(np.float64) - LOW) * 255 / (HIGH - LOW)


@pytest.mark.parametrize("ending", [".npy", ".tif", ".png"])
@pytest.mark.parametrize("channels", [1, 3])
def test_twelve_bits_keep_their_digits(tmp_path, ending, channels):
    array = RNG.integers(0, 4300, (5, 7) if channels == 1 else (5, 7, 3)).astype(np.uint16)
    array.flat[:2] = 0, 4299
    found = ImageFormat(channels, (LOW, HIGH)).read(_write(tmp_path / f"a{ending}", array))
    wanted = _wanted(array)
    np.testing.assert_allclose(found, wanted if channels == 1 else wanted[..., ::-1], rtol=1e-5, atol=1e-4)
    assert found.dtype == np.float32 and found.min() < 0 and found.max() > 255  # nothing is clipped


@pytest.mark.parametrize(
    "options", [{}, {"planarconfig": "separate"}, {"compression": "lzw"}, {"compression": "deflate"}, {"bigtiff": True}]
)
@pytest.mark.parametrize("dtype", ["u2", "f4", ">u2", "i2", "f8"])
def test_bands_of_tiff(tmp_path, dtype, options):
    array = (RNG.uniform(0, 4095, (6, 9, 5))).astype(dtype)
    stored = np.moveaxis(array, -1, 0) if options.get("planarconfig") else array
    path = _write(tmp_path / "a.tif", stored, photometric="minisblack", **{"planarconfig": "contig", **options})
    found = ImageFormat(5, (LOW, HIGH)).read(path)
    np.testing.assert_allclose(found, _wanted(array), rtol=1e-5, atol=1e-4)


def test_pages_that_are_bands_and_arrays_with_bands_first(tmp_path):
    array = RNG.uniform(0, 4095, (4, 6, 9)).astype(np.float32)
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for page in array:
            file.write(page, photometric="minisblack", contiguous=True)
    np.save(tmp_path / "a.npy", array)
    for name in ("a.tif", "a.npy"):
        found = ImageFormat(4, (LOW, HIGH)).read(tmp_path / name)
        np.testing.assert_allclose(found, _wanted(np.moveaxis(array, 0, -1)), rtol=1e-5, atol=1e-4)


def test_eight_bits_of_many_bands_stay_eight_bits(tmp_path):
    array = RNG.integers(0, 256, (5, 7, 4)).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), cv2.cvtColor(array, cv2.COLOR_RGBA2BGRA))
    _write(tmp_path / "a.npy", array)
    _write(tmp_path / "a.tif", array, photometric="rgb", extrasamples=["unspecified"])
    for name in ("a.png", "a.npy", "a.tif"):
        found = ImageFormat(4).read(tmp_path / name)
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, array)


def test_sixteen_bits_without_a_range_are_said_once(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(bands, "_said", type(bands._said)())
    grey = RNG.integers(0, 65536, (5, 7)).astype(np.uint16)
    path = _write(tmp_path / "a.png", grey)
    with caplog.at_level(logging.WARNING, "paddle_dnl"):
        found = [ImageFormat(1).read(path) for _ in range(3)][0]
    assert found.dtype == np.uint8 and np.abs(found - grey / 257.0).max() <= 1
    assert [r.getMessage() for r in caplog.records if "0 to 65535 are read as 0 to 255" in r.getMessage()] and len(
        caplog.records
    ) == 1
    many = RNG.integers(0, 65536, (5, 7, 6)).astype(np.uint16)
    np.testing.assert_allclose(ImageFormat(6).read(_write(tmp_path / "a.npy", many)), many / 257.0, rtol=1e-6)


def test_eight_bits_in_a_range_of_twelve_are_said_once(tmp_path, monkeypatch, caplog):
    paths = {bits: _write(tmp_path / f"{bits}.png", np.full((5, 7), 200, f"uint{bits}")) for bits in (8, 16)}
    for order, messages in (
        ((16,), []),
        ((8,), ["8.png: has 8 bits; value_range [0, 4095] makes its 255 a 16 on the scale 0 to 255"]),
        ((16, 8), ["8.png has 8 bits, TMP/16.png more; value_range [0, 4095] holds for both and makes 255 a 16"]),
        ((8, 16), ["8.png: has 8 bits", "8.png has 8 bits, TMP/16.png more"]),
    ):
        monkeypatch.setattr(bands, "_depths", {})
        caplog.clear()
        with caplog.at_level(logging.WARNING, "paddle_dnl"):
            for bits in order * 3:
                ImageFormat(1, (0, 4095)).read(paths[bits])
                ImageFormat(1, (0, 255)).read(paths[bits])
        said = [record.getMessage().replace(str(tmp_path), "TMP") for record in caplog.records]
        assert len(said) == len(messages) and all(part in text for part, text in zip(messages, said, strict=True))


@pytest.mark.parametrize(
    "array, image_format, message",
    [
        (np.ones((4, 5), np.float32), ImageFormat(1), "holds float32 numbers, whose scale is not known.*value_range"),
        (np.full((4, 5), np.nan, np.float32), ImageFormat(1, (0, 1)), "NaN or infinity at 20 places"),
        (np.zeros((4, 5, 4), np.uint16), ImageFormat(5, (0, 1)), "has 4 bands, expected 5"),
        (np.zeros((4, 5, 4), np.uint16), ImageFormat(3, (0, 1)), "has 4 bands, expected 3"),
        (np.zeros((2, 2, 4, 5), np.uint16), ImageFormat(4, (0, 1)), r"is an array \[2, 2, 4, 5\]"),
        (np.zeros((4, 5), complex), ImageFormat(1, (0, 1)), "complex128"),
        (np.array([[object()]]), ImageFormat(1, (0, 1)), "not a readable .npy file"),
    ],
    ids=["float", "nan", "bands", "colours", "four axes", "complex", "pickle"],
)
def test_what_is_refused(tmp_path, array, image_format, message):
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    with pytest.raises(DataError, match=f"a.npy: .*{message}"):
        image_format.read(tmp_path / "a.npy")


def test_damaged_files_are_named(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((30, 30, 5), np.uint16))
    tifffile.imwrite(
        tmp_path / "b.tif", np.zeros((30, 30, 5), np.uint16), photometric="minisblack", planarconfig="contig"
    )
    for name in ("a.npy", "b.tif"):
        content = (tmp_path / name).read_bytes()
        for size in (20, len(content) // 2):
            (tmp_path / name).write_bytes(content[:size])
            with pytest.raises(DataError, match=name):
                ImageFormat(5, (0, 1)).read(tmp_path / name)


def test_limits_of_strangers_files(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((30, 40, 5), np.uint16))
    tifffile.imwrite(
        tmp_path / "b.tif", np.zeros((30, 40, 5), np.uint16), photometric="minisblack", planarconfig="contig"
    )
    for name in ("a.npy", "b.tif"):
        assert ImageFormat(5).read(tmp_path / name, max_pixels=1200).shape == (30, 40, 5)
        with pytest.raises(TooLarge, match="40x30"):
            ImageFormat(5).read(tmp_path / name, max_pixels=1199)


def test_a_tiff_of_a_stranger_reads_no_other_file_and_costs_no_minutes(tmp_path, capfd):
    """OME's XML may name other files, whose pixels tifffile would read; each of a million pages may be of 18 bytes."""
    tifffile.imwrite(tmp_path / "secret.tif", np.full((2, 8, 8), 77, np.uint16), ome=True, metadata={"axes": "CYX"})
    numbers = [f"urn:uuid:00000000-0000-0000-0000-00000000000{i}" for i in (1, 2)]
    planes = "".join(
        f'<TiffData IFD="0" FirstC="{i}" PlaneCount="1"><UUID FileName="{name}">{numbers[i]}</UUID></TiffData>'
        for i, name in enumerate(("a.tif", "secret.tif"))
    )
    xml = (
        f'<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="{numbers[0]}">'
        '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint16" SizeX="8" SizeY="8" SizeC="2" '
        f'SizeZ="1" SizeT="1">{planes}</Pixels></Image></OME>'
    )
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((8, 8), np.uint16), description=xml, metadata=None)
    assert ImageFormat(1, (0, 255)).read(tmp_path / "a.tif").max() == 0
    pages = b"".join(struct.pack("<HHHIII", 1, 256, 3, 1, 1, 26 + 18 * i) for i in range(100_000))
    (tmp_path / "b.tif").write_bytes(b"II*\0\x08\0\0\0" + pages)
    began = time.monotonic()
    with pytest.raises(DataError, match="b.tif: a TIFF of 100000 pages"):
        ImageFormat(5, (0, 1)).read(tmp_path / "b.tif")
    assert time.monotonic() - began < 5 and capfd.readouterr().err.count("\n") < 5


def test_colour_and_float_tiff_without_a_range_is_refused_not_clipped(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", RNG.uniform(0, 9000, (5, 7, 3)).astype(np.float32), photometric="rgb")
    with pytest.raises(DataError, match="a.tif: .*value_range"):
        ImageFormat().read(tmp_path / "a.tif")


def test_arrays_are_read_like_files(tmp_path):
    array = RNG.integers(0, 4096, (5, 7, 5)).astype(np.uint16)
    image_format = ImageFormat(5, (LOW, HIGH))
    path = _write(tmp_path / "a.npy", array)
    np.testing.assert_array_equal(image_format.of_array(array), image_format.read(path))
    colours = RNG.integers(0, 256, (5, 7, 3)).astype(np.uint8)
    np.testing.assert_array_equal(ImageFormat(1).of_array(colours), cv2.cvtColor(colours, cv2.COLOR_BGR2GRAY))
    with pytest.raises(DataError, match=r"reads 5 bands, got \[5, 7, 3\]"):
        image_format.of_array(colours)


def test_display_clips_and_shows_three_bands():
    image = np.zeros((2, 2, 5), np.float32)
    image[..., 0], image[..., 1], image[..., 2] = 300, 7.6, -4
    assert displayed(image)[0, 0].tolist() == [0, 8, 255]
    assert overlay(image, np.zeros((2, 2), np.uint8), [(0, 0, 0), (1, 2, 3)])[0, 0].tolist() == [0, 8, 255]
    assert displayed(image[..., :2])[0, 0].tolist() == [255, 255, 255]


_ARGUMENTS = {
    "Resize": {"target_size": [31, 23]}, "RandomCrop": {"crop_size": [16, 12]}, "Padding": {"target_size": [48, 40]},
    "RandomPaddingCrop": {"crop_size": [48, 16]}, "ResizeToFit": {"frame": [31, 23]}, "ResizeByLong": {"long_size": 20},
    "ResizeByShort": {"short_size": 20}, "LimitLong": {"max_long": 20}, "RandomScaleAspect": {"scale_range": [0.5, 2]},
}  # fmt: skip


@pytest.mark.parametrize("channels", [1, 4, 5])
def test_every_transform_takes_any_number_of_bands_or_says_that_it_does_not(channels):
    """Padding with a number fills every band: OpenCV's scalars hold four, the fourth of which is 0 by default."""
    registered = TRANSFORMS.components_dict.items()
    ours = {name: cls for name, cls in registered if cls.__module__.startswith("paddle_dnl.data.transforms.")}
    assert len(ours) >= 20
    for name, cls in ours.items():
        step = cls(**_ARGUMENTS.get(name, {}))
        if channels not in getattr(step, "CHANNELS", (channels,)):
            with pytest.raises(ValueError, match=f"{name}: is for images of .* channels, not {channels}"):
                Compose([step], img_channels=channels)
            continue
        image = RNG.uniform(0, 255, (30, 40, channels) if channels > 1 else (30, 40)).astype(np.float32)
        shape = (30, 40, 2) if name == "AddMultiLabelAuxiliaryCategory" else (30, 40)
        data = {"img": image, "label": np.zeros(shape, np.uint8), "gt_fields": ["label"], "trans_info": []}
        found = Compose([step], img_channels=channels)(data)["img"]
        assert found.shape[0] == channels and np.isfinite(found).all(), name
        if name == "Padding":
            assert (found[:, 30:] == 127.5).all() and (found[:, :, 40:] == 127.5).all()


@pytest.mark.parametrize("share", [0.4, 0.99])
@pytest.mark.parametrize("progressive", [False, True])
def test_every_reader_refuses_truncated_jpegs(tmp_path, progressive, share):
    """OpenCV fills the rest with grey. The thumbnail in the header has an end marker of its own."""
    picture = cv2.GaussianBlur(RNG.integers(0, 256, (80, 120, 3), np.uint8), (0, 0), 2)
    small = cv2.imencode(".jpg", picture[:8, :8])[1].tobytes()
    content = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_PROGRESSIVE, int(progressive)])[1].tobytes()
    content = content[:2] + b"\xff\xe2" + struct.pack(">H", len(small) + 2) + small + content[2:]
    whole, cut = tmp_path / "whole.jpg", tmp_path / "cut.jpg"
    whole.write_bytes(content)
    cut.write_bytes(content[: int(share * len(content))])
    readers = [ImageFormat().read, ImageFormat(1).read, read_as_stored, lambda path: open_rows(path, ImageFormat())]
    readers.append(lambda path: ImageFormat().read(path, max_pixels=10**6))
    for read in readers:
        read(whole)
        with pytest.raises(DataError, match=r"cut.jpg: is a damaged JPEG"):
            read(cut)
