# SPDX-License-Identifier: Apache-2.0
"""What `data import` says of sources that can be imported, but may mean something else."""

import json
import logging

from paddle_dnl.cli.data import import_data
from paddle_dnl.data.classes import read_classes
from paddle_dnl.errors import DataError, UsageError

import annotated
import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def said(caplog, tmp_path):
    """Imports into a new folder; returns warnings, and then the summary."""

    def run(source, kind, *more):
        caplog.clear()
        to = tmp_path / f"to_{len(list(tmp_path.iterdir()))}"
        with caplog.at_level(logging.INFO, "paddle_dnl"):
            words = [str(source), "--to", str(to), "--format", kind, "--num_workers", "1", *map(str, more)]
            assert import_data.main(words) == 0
        lines = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
        return [*lines, caplog.records[-1].getMessage()]

    return run


def _masks(folder, mask):
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
        for seed in range(2):
            image = mask if name == "masks" else np.zeros((*mask.shape, 3), np.uint8)
            Image.fromarray(image).save(folder / name / f"{seed}.png")
    return folder


def test_pictures_without_annotation_are_counted(tmp_path, said):
    labelme = annotated.write_labelme(tmp_path / "labelme", 3)
    coco, cvat = annotated.write_coco(tmp_path / "coco", 3), annotated.write_cvat(tmp_path / "cvat", 3)
    for source, kind in ((labelme, "labelme"), (coco, "coco"), (cvat, "cvat")):
        line = "3 pairs written, 0 were there, 0 skipped; 3 classes in classes.txt"
        assert said(source, kind)[0].endswith(line)
    (labelme / "sub").mkdir()
    for folder in (labelme / "sub", tmp_path / "coco/images", tmp_path / "cvat/images"):
        Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(folder / "later.png")
    for source, kind in ((labelme, "labelme"), (coco, "coco"), (cvat, "cvat")):
        assert "; 1 pictures without annotation left out, first " in said(source, kind)[0]
    masks = _masks(tmp_path / "masks", np.eye(8, dtype=np.uint8))
    (masks / "images/0.png").unlink()
    assert said(masks, "masks")[0].endswith(
        "1 labels belong to no picture in " + f"{masks}/images, first {masks}/masks/0.png"
    )


def test_a_threshold_that_nothing_reaches_is_refused(tmp_path, said):
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    eight, sixteen = _masks(tmp_path / "8", ramp), _masks(tmp_path / "16", ramp.astype(np.uint16) * 200)
    with pytest.raises(DataError, match="0.png: has 8 bits, no value reaches --threshold 300; give 1 to 255"):
        said(eight, "binary-masks", "--threshold", 300)
    with pytest.raises(UsageError, match="--threshold must be at least 1, got 0"):
        said(eight, "binary-masks", "--threshold", 0)
    assert (
        len(said(eight, "binary-masks", "--threshold", 255))
        == len(said(sixteen, "binary-masks", "--threshold", 300))
        == 1
    )
    assert "all pixels of all labels are class 0 (background)" in said(sixteen, "binary-masks", "--threshold", 60000)[0]
    one_bit = _masks(tmp_path / "1", np.eye(8, dtype=bool))
    assert len(said(one_bit, "binary-masks", "--threshold", 128)) == 1, "white is 255"


def test_labels_that_differ_in_blanks_or_case(tmp_path, said):
    source = annotated.write_labelme(tmp_path / "labelme", 4)
    for number, name in enumerate(("box", "box ", "\tbox", "Box")):
        path = source / f"scene_{number:02d}.json"
        content = json.loads(path.read_text())
        content["shapes"] = [shape | {"label": name} for shape in content["shapes"]]
        path.write_text(json.dumps(content))
    lines = said(source, "labelme")
    assert (
        lines[0] == "classes 'Box' and 'box' differ only in upper and lower case; are they one class?"
        and len(lines) == 2
    )
    assert read_classes(next(tmp_path.glob("to_*/classes.txt"))).names == ("background", "Box", "box")
    said(source, "labelme", "--classes", "background", "box ", "Box")
    (tmp_path / "labelme/scene_00.json").write_text(path.read_text().replace("Box", " #1").replace("_03", "_00"))
    with pytest.raises(DataError, match="class '#1': begins with #"):
        said(source, "labelme")
    path.write_text(path.read_text().replace("Box", " "))
    with pytest.raises(DataError, match="scene_03.json: shape 0: has no label"):
        said(source, "labelme", "--classes", "background", "box")


def test_numbers_of_masks_that_are_no_class_numbers(tmp_path, said, caplog):
    blocks = np.kron(np.array([[0, 1], [2, 1]], np.uint8), np.ones((4, 4), np.uint8))
    lines = said(_masks(tmp_path / "grey", blocks * 100), "masks")
    assert "only 3 of 201 class numbers occur (0, 100, 200)" in lines[0] and "--format color-masks" in lines[0]
    lines = said(_masks(tmp_path / "one", blocks + 1), "masks")
    assert "the smallest class number is 1; class_0 has no pixel" in lines[0] and len(lines) == 2
    assert "255 -> 255 (ignored)" in caplog.text and "65535" not in caplog.text
    assert len(said(_masks(tmp_path / "wide", blocks.astype(np.uint16)), "masks")) == 1
    assert "65535 -> 255 (ignored)" in caplog.text


def test_pictures_elsewhere_are_asked_for(tmp_path, said):
    coco = annotated.write_coco(tmp_path / "coco", 2)
    (tmp_path / "coco/images").rename(tmp_path / "pictures")
    with pytest.raises(
        DataError, match="annotations.json: its picture .*0.png is not there; --images names another folder"
    ):
        said(coco, "coco")
    assert len(said(coco, "coco", "--images", tmp_path / "pictures")) == 1
