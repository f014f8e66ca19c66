# SPDX-License-Identifier: Apache-2.0
"""infer.py on pictures that are read and written in strips, GeoTIFFs, and TIFFs of 12 bits and floats, in tiles."""

from paddle_dnl.cli import infer
from paddle_dnl.data.images import bands, block_rows, picture_rows
from paddle_dnl.data.images.block_rows import BlockRows
from paddle_dnl.errors import DataError

import cv2
import numpy as np
import pytest
import rasterio
import tifffile
from PIL import Image
from tiny_export import blocks

PICTURE, LABEL = blocks(50, 60, 3)


@pytest.fixture
def field(tmp_path):
    """`PICTURE` as a GeoTIFF."""
    path = tmp_path / "field.tif"
    size = {"height": PICTURE.shape[0], "width": PICTURE.shape[1], "count": 3, "dtype": "uint8"}
    place = {"crs": "EPSG:32633", "transform": rasterio.transform.from_origin(412345, 5812345, 0.5, 0.5)}
    with rasterio.open(path, "w", driver="GTiff", photometric="rgb", **size, **place) as file:
        file.write(PICTURE[..., ::-1].transpose(2, 0, 1))
    return path


def test_large_files_are_read_and_written_in_strips_with_the_same_results(exported, field, tmp_path, monkeypatch):
    held = []
    real = BlockRows.release
    monkeypatch.setattr(BlockRows, "release", lambda self, top: (held.append(len(self._held)), real(self, top))[1])
    flags = ["--config", str(exported), "--image_path", str(field), "--geotiff", "--batch_size", "3"]
    for name, limit in (("whole", 10**9), ("strips", 1)):
        for module in (block_rows, picture_rows):
            monkeypatch.setattr(module, "BLOCKS_FROM", limit)
        assert infer.main([*flags, "--save_dir", str(tmp_path / name)]) == 0
        assert bool(held) == (name == "strips")
    assert max(held) <= 32, "one row of tiles"
    for file in ("field.png", "added_prediction/field.png", "geotiff/field.tif"):
        whole, strips = (np.array(Image.open(tmp_path / name / file)) for name in ("whole", "strips"))
        np.testing.assert_array_equal(whole, strips)
    np.testing.assert_array_equal(np.array(Image.open(tmp_path / "strips/field.png")), LABEL)
    with rasterio.open(field) as source, rasterio.open(tmp_path / "strips/geotiff/field.tif") as found:
        assert (found.crs, found.transform) == (source.crs, source.transform)
        np.testing.assert_array_equal(found.read(1), LABEL)


def test_a_tiff_without_a_transform_is_one_line(exported, tmp_path):
    cv2.imwrite(str(tmp_path / "a.tif"), PICTURE)
    flags = ["--config", str(exported), "--image_path", str(tmp_path / "a.tif"), "--save_dir", str(tmp_path / "out")]
    with pytest.raises(DataError, match="a.tif: is a TIFF without a transform"):
        infer.main([*flags, "--geotiff"])
    assert not list(tmp_path.glob("out/*.png"))
    assert infer.main(flags) == 0


def test_twelve_bits_through_tiles(exported, tmp_path, monkeypatch, caplog):
    """0..4095 in 16 bits: with its scale as in 8 bits; without, it is said how few grey levels are left."""
    for name in ("_said", "_said_few"):  # once per process
        monkeypatch.setattr(bands, name, type(bands._said)())
    twelve = (PICTURE.astype(np.uint16) * 16) + 8
    cv2.imwrite(str(tmp_path / "a.tif"), twelve)
    tifffile.imwrite(tmp_path / "floats.tif", PICTURE[..., ::-1].astype(np.float32) / 255, photometric="rgb")
    flags = ["--config", str(exported), "--image_path", str(tmp_path / "a.tif")]
    assert infer.main([*flags, "--save_dir", str(tmp_path / "o"), "--value_range", "0", "4095"]) == 0
    np.testing.assert_array_equal(np.array(Image.open(tmp_path / "o/a.png")), LABEL)
    assert "of 256 grey levels" not in caplog.text
    infer.main([*flags, "--save_dir", str(tmp_path / "p")])
    assert "a.tif: has 16 bits but no number above 3528" in caplog.text and "--value_range 0 4095" in caplog.text
    flags[3] = str(tmp_path / "floats.tif")
    with pytest.raises(DataError, match="floats.tif: .*--value_range LO HI"):
        infer.main([*flags, "--save_dir", str(tmp_path / "q")])
    assert infer.main([*flags, "--save_dir", str(tmp_path / "q"), "--value_range", "0", "1"]) == 0
    np.testing.assert_array_equal(np.array(Image.open(tmp_path / "q/floats.png")), LABEL)
