# SPDX-License-Identifier: Apache-2.0
"""Bad labels of the datasets with folders and class numbers of their own: refused with file and value, as for plain lists.

The files are spoilt as for `Dataset`, then moved to where ADE20K and the PASCAL classes look for them.
"""

import os
from pathlib import Path

from paddle_dnl.data.checking.check import check_dataset
from paddle_dnl.data.datasets import ADE20K
from paddle_dnl.data.images.reading import read_label
from paddle_dnl.data.pascal import PascalContext, PascalContext59, PascalVOC
from paddle_dnl.errors import DataError
from paddle_dnl.evaluation.image_scores import true_label

import numpy as np
import pytest
from PIL import Image
from test_bad_data import CLASSES, GOOD, LABEL, REFUSED, H, W

# Dataset, its folder of labels, and numbers in a file that are no class of it.
KINDS = {
    "ADE20K": (ADE20K, "annotations/training", (-1, 151, 254, 255, 256, 300, 65535)),
    "PascalVOC": (PascalVOC, "VOC2012/SegmentationClass", (-1, 21, 254, 256, 300, 65535)),
    "PascalContext": (PascalContext, "Context", (-1, 60, 254, 256, 300, 65535)),
    "PascalContext59": (PascalContext59, "Context", (-1, 60, 254, 256, 300, 65535)),
}
LISTED = {"PascalVOC": "VOC2012/ImageSets/Segmentation/train.txt"}
IMAGES = {"ADE20K": "images/training", "PascalVOC": "VOC2012/JPEGImages"}
FILES = (
    "label of 0 bytes", "label PNG cut", "label PNG with a flipped bit", "label is text", "label of 10^10 pixels",
    "label in colours", "label with alpha", "label grey with alpha", "label as JPEG", "label with fractions",
    "sizes differ", "sizes exchanged",
)  # fmt: skip


def _tree(root: Path, kind: str, spoil) -> Path:
    """Two pairs, `a0` and `a1`, the second label spoilt; returns the root of the dataset."""
    flat, tree = root / "flat", root / "data"
    images, labels = tree / IMAGES.get(kind, "JPEGImages"), tree / KINDS[kind][1]
    listed = tree / LISTED.get(kind, "ImageSets/Segmentation/train_context.txt")
    for folder in (flat, images, labels, listed.parent):
        folder.mkdir(parents=True, exist_ok=True)
    listed.write_text("a0\na1\n")
    for i in range(2):
        Image.fromarray(GOOD).save(images / f"a{i}.jpg")
        Image.fromarray(CLASSES).save(flat / f"b{i}.png")
    spoil(flat)
    for i in range(2):
        os.rename(flat / f"b{i}.png", labels / f"a{i}.png")
    return tree


def _hold(value: int):
    def spoil(flat):
        label = CLASSES.astype(np.int32)
        label[0, :3] = value
        # One kind of picture for each range of numbers, all under one name.
        if value < 0:
            Image.fromarray(label).save(flat / LABEL, format="TIFF")
        else:
            Image.fromarray(label.astype(np.uint8 if value < 256 else np.uint16)).save(flat / LABEL)

    return spoil


def _build(kind: str, tree: Path, mode: str = "train"):
    return KINDS[kind][0](transforms=[], dataset_root=str(tree), mode=mode)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", ("ADE20K", "PascalVOC", "PascalContext59"))
def test_label_files_are_refused(tmp_path, kind, name):
    spoil, says = REFUSED[name]
    dataset = _build(kind, _tree(tmp_path, kind, spoil))
    with pytest.raises(DataError, match=says.replace("a1.png", "a1.jpg").replace("b1.png", "a1.png")):
        check_dataset(dataset, "train_dataset", tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*.json")), "noted as whole"


@pytest.mark.parametrize("kind, value", [(kind, value) for kind, row in KINDS.items() for value in row[2]])
def test_label_numbers_are_refused_as_they_are_stored(tmp_path, kind, value):
    dataset = _build(kind, _tree(tmp_path, kind, _hold(value)))
    with pytest.raises(
        DataError, match=rf"a1\.png: holds {value} \(3 pixels\)[,;].* 0 to {dataset.num_classes - 1}, or"
    ):
        check_dataset(dataset, "train_dataset", tmp_path / "cache")


@pytest.mark.parametrize("value", (-1, 256, 300))
@pytest.mark.parametrize("kind", ("ADE20K", "PascalContext59"))
def test_numbers_beyond_a_byte_never_reach_training_or_scores(tmp_path, kind, value):
    """A file may change after the check; as a byte 300 would be class 43."""
    dataset = _build(kind, _tree(tmp_path, kind, _hold(value)))
    assert dataset[0]["label"].shape == (H, W)
    for read in (lambda: dataset[1], lambda: true_label(dataset, 1)):
        with pytest.raises(DataError, match=rf"a1\.png: holds {value} \(3 pixels\)"):
            read()


@pytest.mark.parametrize("kind, expected", [("ADE20K", [255, 0, 149]), ("PascalContext59", [255, 0, 255])])
def test_classes_in_wide_files_are_mapped_as_in_narrow_ones(tmp_path, kind, expected):
    stored = {"ADE20K": [0, 1, 150], "PascalContext59": [0, 1, 255]}[kind]

    def spoil(flat):
        Image.fromarray(np.array(stored * 64, np.uint16).reshape(H, W)).save(flat / LABEL)

    dataset = _build(kind, _tree(tmp_path, kind, spoil))
    check_dataset(dataset, "train_dataset", tmp_path / "cache")
    np.testing.assert_array_equal(dataset[1]["label"].ravel()[:3], expected)


@pytest.mark.parametrize(
    "kind, text",
    [
        ("postscript", "of another format than PNG"),
        ("WEBP", "of another format than PNG"),
        ("JPEG2000", "of another format than PNG"),
        ("ICO", "of another format than PNG"),
        ("tiff jpeg", "compressed by jpeg"),
    ],
)
def test_labels_of_formats_that_lose_or_run_something(tmp_path, kind, text):
    path = tmp_path / "label.png"
    picture = Image.fromarray(np.zeros((16, 16), np.uint8))
    if kind == "postscript":
        path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n(%pipe%touch hacked) (w) file\n")
    elif kind == "tiff jpeg":
        picture.save(path, format="TIFF", compression="jpeg")
    else:
        picture.save(path, format=kind)
    with pytest.raises(DataError, match=f"label.png: .*{text}"):
        read_label(path)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF", "PPM", "TIFF"])
def test_lossless_labels_are_read(tmp_path, kind):
    label = np.arange(64, dtype=np.uint8).reshape(8, 8) % 5
    Image.fromarray(label).save(
        tmp_path / "label", format=kind, **({"compression": "tiff_lzw"} if kind == "TIFF" else {})
    )
    np.testing.assert_array_equal(read_label(tmp_path / "label"), label)
