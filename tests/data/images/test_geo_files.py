# SPDX-License-Identifier: Apache-2.0
"""Label maps that lie where their pictures lie, read back with tifffile, which writes none of them."""

import sys

import paddle_dnl  # noqa: F401
from paddle_dnl.data.images.geo_files import GeoTiffFile, save_geotiff
from paddle_dnl.data.images.raster_files import Place
from paddle_dnl.errors import DataError, OutputError, UsageError

import cv2
import numpy as np
import pytest
import rasterio
import tifffile
from rasterio.transform import Affine

TRANSFORM = Affine(0.5, 0.1, 412345.25, 0.1, -0.5, 5812345.75)
LABEL = np.random.default_rng(0).integers(0, 4, (700, 300), dtype=np.uint8)
COLORS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (9, 9, 9)]


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "field.tif"
    profile = {"driver": "GTiff", "height": 700, "width": 300, "count": 3, "dtype": "uint8", "photometric": "rgb"}
    with rasterio.open(path, "w", crs="EPSG:32633", transform=TRANSFORM, **profile) as file:
        file.write(np.zeros((3, 700, 300), np.uint8))
    return path


def _geo_tags(path) -> dict:
    with tifffile.TiffFile(path) as file:
        tags = file.pages[0].tags
        return {code: tags[code].value for code in (33550, 33922, 34264, 34735, 34736, 34737) if code in tags}


def test_transform_and_reference_system_are_the_pictures(picture, tmp_path):
    place = Place.of(picture)
    assert place.transform == TRANSFORM and place.crs.to_epsg() == 32633
    file = GeoTiffFile(tmp_path / "strips.tif", LABEL.shape, COLORS, place)
    for top in range(0, 700, 90):
        file.write(LABEL[top : top + 90])
    file.finish()
    assert not (tmp_path / "strips.tif").exists(), "it appears when it is whole"
    file.commit()
    save_geotiff(tmp_path / "whole.tif", LABEL, COLORS, place)
    for name in ("strips", "whole"):
        path = tmp_path / f"{name}.tif"
        np.testing.assert_array_equal(tifffile.imread(path), LABEL)
        assert _geo_tags(path) == _geo_tags(picture) != {}
        with tifffile.TiffFile(path) as file:
            colors = file.pages[0].colormap[:, : len(COLORS)].T // 257
        np.testing.assert_array_equal(colors, COLORS)


def test_more_than_256_classes(picture, tmp_path):
    wide = LABEL.astype(np.uint16) * 200
    save_geotiff(tmp_path / "a.tif", wide, COLORS * 100, Place.of(picture))
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.tif"), wide)


def test_bad_input_is_one_line(picture, tmp_path, monkeypatch):
    tifffile.imwrite(tmp_path / "plain.tif", LABEL)
    cv2.imwrite(str(tmp_path / "a.png"), LABEL)
    (tmp_path / "text.tif").write_text("no picture")
    for name, text in (("plain.tif", "without a transform"), ("a.png", "this is a PNG"), ("text.tif", "not a picture"),
                       ("none.tif", "cannot be read")):  # fmt: skip
        with pytest.raises(DataError, match=f"{name}.*{text}"):
            Place.of(tmp_path / name)
    with pytest.raises(OutputError, match="field.tif"):
        save_geotiff(picture, LABEL, COLORS, Place.of(picture))
    monkeypatch.setitem(sys.modules, "rasterio", None)
    with pytest.raises(UsageError, match="rasterio is not installed; pip install rasterio"):
        Place.of(picture)
