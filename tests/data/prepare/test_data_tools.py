# SPDX-License-Identifier: Apache-2.0
"""The tools that make Cityscapes labels and lists: right pixels, what is done stays, errors that name the file."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

from paddle_dnl.cli.data import create_list as list_program
from paddle_dnl.data.prepare import convert_cityscapes
from paddle_dnl.errors import DataError, UsageError

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[3]


def _made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _picture(path: Path, size=(6, 8)) -> Path:
    Image.fromarray(np.zeros((*size, 3), np.uint8)).save(_made(path))
    return path


# ------------------------------------------------------------------------------------ Cityscapes


def _polygons(root: Path, stem="a_000000_000019"):
    path = _made(root / f"gtFine/train/a/{stem}_gtFine_polygons.json")
    objects = [("sky", [[0, 0], [7, 0], [7, 2], [0, 2]]), ("dynamic", [[0, 4], [7, 4], [7, 5], [0, 5]])]
    path.write_text(
        json.dumps({"imgHeight": 6, "imgWidth": 8, "objects": [{"label": name, "polygon": p} for name, p in objects]})
    )
    return path, path.with_name(f"{stem}_gtFine_labelTrainIds.png")


def test_polygons_become_training_classes(tmp_path):
    polygons, label = _polygons(tmp_path)
    assert convert_cityscapes.convert_tree(tmp_path, 1) == 1
    wanted = np.full((6, 8), 255)
    wanted[:3] = 10
    np.testing.assert_array_equal(np.array(Image.open(label)), wanted)


def test_polygons_are_painted_once(tmp_path):
    polygons, label = _polygons(tmp_path)
    for content, repainted in ((b"kept", False), (b"", True)):
        label.write_bytes(content)
        convert_cityscapes.convert_tree(tmp_path, 1)
        assert (label.read_bytes() != content) == repainted
    os.utime(label, (1, 1))
    polygons.write_text(polygons.read_text().replace("sky", "road"))
    convert_cityscapes.convert_tree(tmp_path, 1)
    assert np.array(Image.open(label))[0, 0] == 0
    label.write_bytes(b"of another program, older than its polygons")
    os.utime(label, (1, 1))
    with pytest.raises(DataError, match="labelTrainIds.png: exists and was not written"):
        convert_cityscapes.convert_tree(tmp_path, 1)
    convert_cityscapes.convert_tree(tmp_path, 1, force=True)
    assert np.array(Image.open(label)).shape == (6, 8)


def test_damaged_polygons_end_the_program_with_their_name(tmp_path):
    _polygons(tmp_path)
    broken, label = _polygons(tmp_path, "a_000001_000019")
    broken.write_text(broken.read_text()[:40])
    unknown, _ = _polygons(tmp_path, "a_000002_000019")
    unknown.write_text(unknown.read_text().replace('"sky"', '"moon"'))
    program = [
        sys.executable,
        str(ROOT / "tools/data/convert_cityscapes.py"),
        "--num_workers",
        "2",
        "--cityscapes_path",
    ]
    done = subprocess.run([*program, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "2 of 3 files" in done.stderr and broken.name in done.stderr and unknown.name in done.stderr
    assert not label.exists() and len(list((tmp_path / "gtFine/train/a").glob("*.png"))) == 1
    done = subprocess.run([*program, str(tmp_path / "none")], capture_output=True, text=True)
    assert done.returncode == 1 and "no gtFine" in done.stderr


# ------------------------------------------------------------------------------------ lists


def test_lists_of_folders_of_ones_own(tmp_path):
    for name in ("one/x/a", "two/b"):
        _picture(tmp_path / f"pictures/{name}_rgb.jpg")
        _picture(tmp_path / f"annotations/{name}_mask.png")
    _picture(tmp_path / "pictures/test/c_rgb.jpg")
    arguments = [
        str(tmp_path), "--folder", "pictures", "annotations", "--second_folder", "one", "two", "test",
        "--postfix", "_rgb", "_mask", "--format", "jpg", ".png", "--separator", ",",
    ]  # fmt: skip
    assert list_program.main(arguments) == 0
    assert (tmp_path / "one.txt").read_text() == "pictures/one/x/a_rgb.jpg,annotations/one/x/a_mask.png\n"
    assert (tmp_path / "two.txt").read_text() == "pictures/two/b_rgb.jpg,annotations/two/b_mask.png\n"
    assert (tmp_path / "test.txt").read_text() == "pictures/test/c_rgb.jpg\n"


def test_a_folder_that_is_named_must_exist(tmp_path, caplog):
    _picture(tmp_path / "images/train/a.jpg")
    _picture(tmp_path / "annotations/train/a.png")
    (tmp_path / "images/val").mkdir()
    for flags in (["--second_folder", "train", "vla"], ["--pairs", "images/train:annotations/train", "images/vla:b"]):
        with pytest.raises(DataError, match="images/vla: no such folder of images"):
            list_program.main([str(tmp_path), *flags])
        assert not list(tmp_path.glob("*.txt"))
    with caplog.at_level(logging.WARNING, "paddle_dnl"):
        assert list_program.main([str(tmp_path)]) == 0, "by default those that exist"
    assert "images/val: no *.jpg there; no val.txt is written" in caplog.text and "test" not in caplog.messages[0][-30:]
    assert [path.name for path in tmp_path.glob("*.txt")] == ["train.txt"]


def test_an_empty_separator_is_refused(tmp_path):
    with pytest.raises(UsageError, match="--separator"):
        list_program.main([str(tmp_path), "--separator", ""])


def test_lists_of_camvids_layout_and_of_pairs_of_folders(tmp_path):
    for split in ("train", "val"):
        _picture(tmp_path / split / "a.PNG")
        _picture(tmp_path / f"{split}annot" / "a.png")
    _picture(tmp_path / "train" / "._a.png")
    _picture(tmp_path / "train" / ".ipynb_checkpoints" / "a.png")
    assert list_program.main([str(tmp_path), "--type", "camvid"]) == 0
    assert (tmp_path / "train.txt").read_text() == "train/a.PNG trainannot/a.png\n"
    assert list_program.main([str(tmp_path), "--pairs", "val:valannot", "--format", "png", "png"]) == 0
    assert (tmp_path / "val.txt").read_text() == "val/a.PNG valannot/a.png\n"


def test_an_image_is_not_its_own_label(tmp_path):
    _picture(tmp_path / "images/train/a.png")
    arguments = [str(tmp_path), "--folder", "images", "images", "--second_folder", "train", "--format", "png", "png"]
    with pytest.raises(DataError, match="a.png: would be its own label"):
        list_program.main(arguments)
    (tmp_path / "labels").symlink_to("images")
    _picture(tmp_path / "labels/b.jpg")
    arguments = [
        str(tmp_path),
        "--folder",
        "images/train",
        "images/train",
        "--second_folder",
        ".",
        "--format",
        "png",
        "png",
    ]
    with pytest.raises(DataError, match="own label"):
        list_program.main(arguments)
    assert not list(tmp_path.glob("*.txt"))


def test_the_second_folder_may_be_the_first_itself(tmp_path):
    _picture(tmp_path / "images/a.jpg")
    _picture(tmp_path / "annotations/a.png")
    assert list_program.main([str(tmp_path), "--second_folder", "."]) == 0
    assert (tmp_path / "all.txt").read_text() == "images/a.jpg annotations/a.png\n"
    assert list_program.main([str(tmp_path), "--second_folder", ".", "--format", "JPG", "png"]) == 0
    assert (tmp_path / "all.txt").read_text() == "images/a.jpg annotations/a.png\n", "endings match in any case"
