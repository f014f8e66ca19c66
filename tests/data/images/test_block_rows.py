# SPDX-License-Identifier: Apache-2.0
"""Pictures by blocks are those that are read whole, bit for bit; what may differ or be costly is read whole or refused."""

import os
import subprocess
import sys

from paddle_dnl.data.images import block_rows
from paddle_dnl.data.images.block_rows import BlockRows, open_rows
from paddle_dnl.data.images.image_format import ImageFormat
from paddle_dnl.data.images.picture_rows import ArrayRows
from paddle_dnl.errors import DataError

import cv2
import numpy as np
import pytest
import rasterio
import tifffile
from costly_pictures import many_scans, tiff_header
from PIL import Image

RANDOM = np.random.default_rng(0)
SMOOTH = cv2.resize(RANDOM.integers(0, 256, (9, 12, 3), dtype=np.uint8), (210, 150), interpolation=cv2.INTER_CUBIC)
WIDE = RANDOM.integers(0, 65536, (150, 210, 3), dtype=np.uint16)
FLOATS = RANDOM.normal(size=(150, 210, 5)).astype(np.float32)
SIGNED = RANDOM.integers(-99, 99, (150, 210), dtype=np.int16)


@pytest.fixture(autouse=True)
def _everything_is_large(monkeypatch):
    monkeypatch.setattr(block_rows, "BLOCKS_FROM", 1)
    monkeypatch.setattr(block_rows, "JPEG_BLOCKS_FROM", 1)


def _pillow(mode="RGB", **options):
    return lambda path: Image.fromarray(SMOOTH).convert(mode).save(path, **options)


def _cv2(pixels, *options):
    return lambda path: cv2.imwrite(str(path), pixels, list(options))


def _tiff(pixels, **options):
    return lambda path: tifffile.imwrite(path, pixels, **options)


GREY, BANDS = ImageFormat(1), ImageFormat(5, (-4.0, 4.0))
BY_BLOCKS = {
    "colour.png": (_cv2(SMOOTH), ImageFormat()),
    "alpha.png": (_pillow("RGBA"), ImageFormat()),
    "grey.png": (_cv2(SMOOTH[..., 0]), ImageFormat()),
    "one_channel.png": (_cv2(SMOOTH[..., 0]), GREY),
    "wide.png": (_cv2(WIDE), ImageFormat()),
    "wide_range.png": (_cv2(WIDE), ImageFormat(3, (100.0, 4095.0))),
    "halved.jpg": (_pillow(quality=90, subsampling=2), ImageFormat()),
    "full.jpg": (_pillow(quality=90, subsampling=0), ImageFormat()),
    "progressive.jpg": (_pillow(quality=90, progressive=True), ImageFormat()),
    "grey.jpg": (_pillow("L"), GREY),
    "strips.tif": (_tiff(SMOOTH, rowsperstrip=7), ImageFormat()),
    "tiles.tif": (_tiff(SMOOTH, tile=(32, 48), compression="zlib"), ImageFormat()),
    "big.tif": (_tiff(SMOOTH, bigtiff=True, tile=(32, 48)), ImageFormat()),
    "bigendian.tif": (_tiff(SMOOTH, byteorder=">", compression="lzw"), ImageFormat()),
    "wide.tif": (_tiff(WIDE, photometric="rgb"), ImageFormat()),
    "twelve.tif": (_tiff(WIDE[..., 0] // 16), ImageFormat(1, (0.0, 4095.0))),
    "floats.tif": (_tiff(FLOATS, photometric="minisblack", planarconfig="contig"), BANDS),
    "planes.tif": (_tiff(FLOATS.transpose(2, 0, 1), photometric="minisblack", planarconfig="separate"), BANDS),
    "signed.tif": (_tiff(SIGNED), ImageFormat(1, (-100.0, 100.0))),
    "signed_colour.tif": (_tiff(SIGNED), ImageFormat(3, (-100.0, 100.0))),
}
WHOLE = {
    "palette.png": (_pillow("P"), ImageFormat()),
    "bits.png": (_pillow("1"), ImageFormat()),
    "cmyk.jpg": (_pillow("CMYK"), ImageFormat()),
    "turned.jpg": (lambda path: Image.fromarray(SMOOTH).save(path, exif=_turned()), ImageFormat()),
    "grey_of_colour.jpg": (_pillow(), GREY),
    "a.bmp": (_cv2(SMOOTH), ImageFormat()),
}


def _turned():
    exif = Image.Exif()
    exif[274] = 6
    return exif


@pytest.mark.parametrize("name", [*BY_BLOCKS, *WHOLE])
def test_the_same_numbers(name, tmp_path):
    path = tmp_path / name
    ending = path.suffix
    write, image_format = {**BY_BLOCKS, **WHOLE}[name]
    write(path)
    rows = open_rows(path, image_format, max_pixels=10**6)
    assert isinstance(rows, BlockRows if name in BY_BLOCKS else ArrayRows)
    whole = image_format.read(path)
    assert tuple(rows.size) == whole.shape[:2]
    found, height = [], rows.size[0]
    for top in range(0, height, 40):  # windows that overlap by half
        bottom = min(top + 40, height)
        ahead = rows.read(top, min(top + 80, height))
        if ending == ".jpg":  # GDAL's decoder rounds and interpolates colours otherwise
            assert np.abs(ahead.astype(int) - whole[top : top + 80]).mean() < 1
            found.append(whole[top:bottom])
        else:
            np.testing.assert_array_equal(ahead, whole[top : top + 80])
            found.append(rows.read(top, bottom))
        assert ahead.dtype == whole.dtype
        rows.release(bottom)
    np.testing.assert_array_equal(np.concatenate(found), whole)
    if name in BY_BLOCKS:
        with pytest.raises(ValueError, match="row 0 was released"):
            rows.read(0, 10)
    rows.close()


def test_small_pictures_and_a_machine_without_rasterio_read_whole(tmp_path, monkeypatch):
    cv2.imwrite(str(tmp_path / "a.png"), SMOOTH)
    monkeypatch.setitem(sys.modules, "rasterio", None)
    assert isinstance(open_rows(tmp_path / "a.png", ImageFormat()), ArrayRows)
    monkeypatch.undo()
    monkeypatch.setattr(block_rows, "BLOCKS_FROM", 210 * 150 + 1)
    assert isinstance(open_rows(tmp_path / "a.png", ImageFormat()), ArrayRows)


VRT = """<VRTDataset rasterXSize="210" rasterYSize="150"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>
<SourceFilename relativeToVRT="0">{0}</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"""


def test_strangers_files(tmp_path, monkeypatch):
    """By content a list of other files, by structure costly: neither reaches GDAL."""
    real = rasterio.open
    monkeypatch.setattr(rasterio, "open", lambda *a, **k: pytest.fail("opened"))
    cv2.imwrite(str(tmp_path / "secret.png"), SMOOTH)
    files = {
        "list.tif": VRT.format(tmp_path / "secret.png").encode(),
        "tile.tif": tiff_header(64, 64, 16_000),
        "large.tif": tiff_header(30_000, 30_000, 256),
        "scans.jpg": many_scans(3000),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=name):
            open_rows(tmp_path / name, ImageFormat(), max_pixels=10**6)
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(DataError, match="pipe"):
        open_rows(tmp_path / "pipe.png", ImageFormat())
    monkeypatch.setattr(rasterio, "open", real)
    # What lies beside a file is not read.
    tifffile.imwrite(tmp_path / "a.tif", SMOOTH)
    (tmp_path / "a.tif.aux.xml").write_text("<PAMDataset><GeoTransform>5,1,0,5,0,1</GeoTransform></PAMDataset>")
    (tmp_path / "a.tfw").write_text("2\n0\n0\n-2\n100\n100\n")
    assert open_rows(tmp_path / "a.tif", ImageFormat())._file.transform.is_identity


@pytest.mark.parametrize("ending", [".png", ".jpg", ".tif"])
def test_a_damaged_file_is_one_line(ending, tmp_path):
    path = tmp_path / f"a{ending}"
    noise = RANDOM.integers(0, 256, (400, 300, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, **({"compression": "tiff_lzw"} if ending == ".tif" else {}))
    content = bytearray(path.read_bytes())
    path.write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(DataError, match=f"a{ending}"):
        rows = open_rows(path, ImageFormat(), max_pixels=10**6)
        rows.read(0, 400)


# Reads 20000x3000 pixels through a window of 200 rows and prints the peak beyond the imports, in megabytes.
CHILD = """
import resource, sys
from paddle_dnl.data.images.block_rows import BlockRows, open_rows
from paddle_dnl.data.images.image_format import ImageFormat
import rasterio, cv2
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
before, rows = peak(), open_rows(sys.argv[1], ImageFormat())
assert isinstance(rows, BlockRows)
for top in range(0, 20000, 100):
    rows.read(top, min(top + 200, 20000))
    rows.release(top)
print(peak() - before)
"""


def test_memory_follows_the_width(tmp_path):
    """60 million pixels are 180 MB."""
    tile = np.tile(SMOOTH, (2, 3, 1))[:256, :512]
    options = {"driver": "GTiff", "height": 20000, "width": 3000, "count": 3, "dtype": "uint8", "tiled": True}
    with rasterio.open(tmp_path / "a.tif", "w", compress="deflate", photometric="rgb", **options) as file:
        for top in range(0, 20000, 256):
            band = np.tile(tile, (1, 6, 1))[: min(256, 20000 - top), :3000]
            file.write(band.transpose(2, 0, 1), window=((top, top + len(band)), (0, 3000)))
    done = subprocess.run([sys.executable, "-c", CHILD, tmp_path / "a.tif"], check=True, capture_output=True, text=True)
    assert int(done.stdout) < 110
