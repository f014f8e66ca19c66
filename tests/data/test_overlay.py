# SPDX-License-Identifier: Apache-2.0
"""Label maps as pictures."""

import os

from paddle_dnl.data.classes import IGNORED_COLOR, class_info
from paddle_dnl.data.overlay import as_label, colorize, overlay, save_image, save_label_png
from paddle_dnl.files.outputs import JOURNAL

import cv2
import numpy as np
import pytest
from PIL import Image

COLORS = ((255, 0, 0), (0, 128, 255))
LABEL = np.array([[0, 1, 1], [255, 0, 1]], np.uint8)


def test_colorize_is_rgb_with_a_colour_for_ignored():
    found = colorize(LABEL, COLORS)
    assert found.dtype == np.uint8 and found.shape == (2, 3, 3)
    np.testing.assert_array_equal(found[0, 0], [255, 0, 0])
    np.testing.assert_array_equal(found[0, 1], [0, 128, 255])
    np.testing.assert_array_equal(found[1, 0], IGNORED_COLOR)


@pytest.mark.parametrize("weight", [0.0, 0.6, 1.0])
def test_overlay_mixes_in_bgr(weight):
    image = np.random.default_rng(0).integers(0, 256, (2, 3, 3), dtype=np.uint8)
    wanted = weight * image.astype(float) + (1 - weight) * colorize(LABEL, COLORS)[..., ::-1].astype(float)
    found = overlay(image, LABEL, COLORS, weight)
    assert found.dtype == np.uint8 and np.abs(found - wanted).max() <= 0.51
    grey = overlay(image[..., 0], LABEL, COLORS, weight)
    np.testing.assert_array_equal(grey, overlay(np.repeat(image[..., :1], 3, axis=2), LABEL, COLORS, weight))


def test_label_png_holds_numbers_and_colours(tmp_path):
    path = tmp_path / "a" / "b.png"
    save_label_png(path, LABEL.astype(np.int64), COLORS)
    with Image.open(path) as picture:
        assert picture.mode == "P"
        np.testing.assert_array_equal(np.array(picture), LABEL)
        np.testing.assert_array_equal(np.array(picture.convert("RGB")), colorize(LABEL, COLORS))
    np.testing.assert_array_equal(cv2.imread(str(path))[..., ::-1], colorize(LABEL, COLORS))


def test_more_colours_than_a_palette_holds(tmp_path):
    colors = [(i % 256, 1, 2) for i in range(300)]
    save_label_png(tmp_path / "a.png", LABEL, colors)
    np.testing.assert_array_equal(colorize(LABEL, colors)[0, 1], [1, 1, 2])


def test_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    save_image(path, np.zeros((4, 4, 3), np.uint8))
    before = path.read_bytes()

    def full_disk(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full_disk)
    for save in (lambda: save_label_png(path, LABEL, COLORS), lambda: save_image(path, np.ones((4, 4, 3), np.uint8))):
        with pytest.raises(OSError, match="No space"):
            save()
    assert path.read_bytes() == before and set(os.listdir(tmp_path)) == {"a.png", JOURNAL}


def test_files_are_readable_by_others(tmp_path):
    save_image(tmp_path / "a.jpg", np.zeros((4, 4, 3), np.uint8))
    mask = os.umask(0)
    os.umask(mask)
    assert (tmp_path / "a.jpg").stat().st_mode & 0o777 == 0o666 & ~mask


def test_background_of_two_classes_stays_clear_and_no_class_looks_ignored():
    image = np.random.default_rng(0).integers(0, 256, (2, 3, 3), dtype=np.uint8)
    colors = class_info("Dataset", 2).colors
    found = overlay(image, LABEL, colors)
    np.testing.assert_array_equal(found[LABEL == 0], image[LABEL == 0])
    assert (found[LABEL == 1] != image[LABEL == 1]).any()
    for count in (2, 21, 256):
        colors = class_info("Dataset", count).colors
        assert len(colors) == count and IGNORED_COLOR not in colors


def test_more_than_256_classes_are_not_wrapped(tmp_path):
    label = np.array([[0, 299, 44]])
    found = as_label(label)
    assert found.dtype == np.uint16 and as_label(label % 256).dtype == np.uint8
    save_label_png(tmp_path / "a.png", found, [(1, 2, 3)] * 300)
    np.testing.assert_array_equal(np.array(Image.open(tmp_path / "a.png")), label)
    colors = [(i % 256, i // 256, 9) for i in range(300)]
    np.testing.assert_array_equal(colorize(found, colors)[0, 1], [43, 1, 9])
