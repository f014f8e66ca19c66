# SPDX-License-Identifier: Apache-2.0
"""One way to walk folders of data: hidden files left out, links followed, endings in any case; for every dataset."""

import ast
from pathlib import Path

import paddle_dnl
from paddle_dnl.data.datasets import ADE20K, Cityscapes
from paddle_dnl.data.images.image_files import find_images, in_any_case, walk_files
from paddle_dnl.data.pascal import PascalVOC
from paddle_dnl.data.prepare.formats import coco

import cv2
import numpy as np
import pytest


def _write(path: Path, channels=3) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = cv2.imencode(path.suffix.lower(), np.zeros((8, 8, channels), np.uint8))[1]
    path.write_bytes(content.tobytes())
    return path


JUNK = ("._{}", ".ipynb_checkpoints/{}", "__MACOSX/{}", ".{}")


def _with_junk(path: Path) -> Path:
    for pattern in JUNK:
        junk = path.parent / pattern.format(path.name)
        junk.parent.mkdir(parents=True, exist_ok=True)
        junk.write_bytes(b"no picture")
    return _write(path)


@pytest.mark.parametrize("ending", [".png", ".PNG"])
def test_cityscapes(tmp_path, ending):
    for city in ("aachen", "bonn"):
        _with_junk(tmp_path / "real" / city / f"{city}_1_leftImg8bit{ending}")
        _write(tmp_path / "gtFine/train" / city / f"{city}_1_gtFine_labelTrainIds{ending}", 1)
    (tmp_path / "leftImg8bit").mkdir()
    (tmp_path / "leftImg8bit/train").symlink_to(tmp_path / "real", target_is_directory=True)
    (tmp_path / "real/.ipynb_checkpoints").mkdir()
    _write(tmp_path / "real/.ipynb_checkpoints/x_leftImg8bit.png")
    dataset = Cityscapes([], str(tmp_path), "train")
    assert [Path(image).name for image, _ in dataset.file_list] == [
        f"{c}_1_leftImg8bit{ending}" for c in ("aachen", "bonn")
    ]
    assert all(dataset[i]["label"].shape == (8, 8) for i in range(2))


@pytest.mark.parametrize("image, label", [(".jpg", ".png"), (".JPG", ".PNG"), (".jpeg", ".png")])
def test_ade20k(tmp_path, image, label):
    _with_junk(tmp_path / "images/training" / f"a{image}")
    _write(tmp_path / "annotations/training" / f"a{label}", 1)
    dataset = ADE20K([], str(tmp_path), "train")
    assert [Path(path).name for path, _ in dataset.file_list] == [f"a{image}"] and dataset[0]["label"].shape == (8, 8)


def test_pascal_voc(tmp_path):
    _write(tmp_path / "VOC2012/JPEGImages/a.JPG")
    _write(tmp_path / "VOC2012/SegmentationClass/a.png", 1)
    (tmp_path / "VOC2012/ImageSets/Segmentation").mkdir(parents=True)
    (tmp_path / "VOC2012/ImageSets/Segmentation/train.txt").write_text("a\n")
    assert Path(PascalVOC([], str(tmp_path), "train").file_list[0][0]).name == "a.JPG"


def test_coco_finds_the_one_file_that_is_shown(tmp_path):
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/a.JSON").write_text('{"images": [], "annotations": [], "categories": []}')
    (tmp_path / "annotations/._a.json").write_bytes(b"\0")
    assert coco.read(tmp_path, None)[0] == []


def test_depth_and_spelling(tmp_path):
    for name in ("a.png", "b/a.png", "b/c/a.png"):
        _write(tmp_path / name)
    for depth, name in enumerate(("a.png", "b/a.png", "b/c/a.png")):
        assert list(walk_files(tmp_path, depth=depth)) == [tmp_path / name]
    assert in_any_case(tmp_path / "A.PNG") == tmp_path / "a.png"
    _write(tmp_path / "A.png")
    assert in_any_case(tmp_path / "A.PNG") == tmp_path / "A.PNG", "of two, none"
    assert in_any_case(tmp_path / "none" / "A.png") == tmp_path / "none" / "A.png"


def test_what_is_left_out_and_what_is_followed(tmp_path):
    for name in ("a.png", "sub/b.PNG", ".git/x.png", "__MACOSX/x.png", "sub/.ipynb_checkpoints/x.png", "sub/._b.png"):
        _write(tmp_path / "real" / name)
    _write(tmp_path / "elsewhere/c.png")
    (tmp_path / "real/linked").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    back = tmp_path / "real/sub/back"
    back.symlink_to(tmp_path / "real", target_is_directory=True)
    wanted = [tmp_path / "real" / name for name in ("a.png", "linked/c.png", "sub/b.PNG")]
    assert list(walk_files(tmp_path / "real")) == wanted
    assert [file for file, _ in find_images(tmp_path / "real")] == wanted
    back.unlink()
    _write(tmp_path / "real/d.JPG")
    found = find_images(tmp_path / "real" / "**" / "*")
    assert {file.name for file, _ in found} == {"a.png", "b.PNG", "c.png", "d.JPG"}


def test_no_other_walk_in_the_room_of_data():
    """Everything else that lists a folder there reads its own output, or asks whether there is anything."""
    own = {"image_files.py", "mini_cityscapes.py", "import_data.py", "masks.py", "check.py"}
    for path in (Path(paddle_dnl.__file__).parent / "data").rglob("*.py"):
        calls = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
        found = calls & {"glob", "rglob", "iglob", "walk", "listdir", "scandir", "iterdir"}
        assert not found or path.name in own, f"{path.name}: {found}; use walk_files"
