# SPDX-License-Identifier: Apache-2.0
"""SBD and PASCAL Context conversions on small made-up trees, read back by the datasets."""

import json
import sys

from paddle_dnl.cli.data.convert_pascal_context import main as context_main
from paddle_dnl.cli.data.voc_augment import main as augment_main
from paddle_dnl.data.classes import PASCAL_CONTEXT_59
from paddle_dnl.data.pascal import PascalContext, PascalVOC
from paddle_dnl.data.prepare.convert_pascal_context import _PUBLISHED_IDS, decode_counts, decode_mask
from paddle_dnl.errors import DataError, UsageError

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat


def _picture(path, value=7, size=(6, 5)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((size[1], size[0], 3) if path.suffix == ".jpg" else size[::-1], value, np.uint8)).save(path)


@pytest.fixture
def sbd(tmp_path):
    voc, root = tmp_path / "VOCdevkit", tmp_path / "benchmark_RELEASE"
    sets = voc / "VOC2012" / "ImageSets" / "Segmentation"
    sets.mkdir(parents=True)
    (sets / "train.txt").write_text("a\n")
    (sets / "val.txt").write_text("b\n")
    (root / "dataset" / "cls").mkdir(parents=True)
    (root / "dataset" / "train.txt").write_text("a\nd\n")
    (root / "dataset" / "val.txt").write_text("b\nc\n")
    for number, name in enumerate("abcd"):
        _picture(voc / "VOC2012" / "JPEGImages" / f"{name}.jpg")
        label = np.arange(30, dtype=np.uint8).reshape(5, 6) % 21
        label[0, 0] = 255 if number % 2 else 20
        savemat(root / "dataset" / "cls" / f"{name}.mat", {"GTcls": {"Segmentation": label, "Boundaries": [1]}})
    _picture(voc / "VOC2012" / "SegmentationClass" / "a.png", 1)
    return voc, root


def test_sbd_adds_what_voc_does_not_have(sbd):
    voc, root = sbd
    arguments = ["--voc_path", str(voc), "--sbd_path", str(root)]
    assert augment_main(arguments) == 0
    folder = voc / "VOC2012" / "SegmentationClassAug"
    assert sorted(path.name for path in folder.iterdir()) == ["c.png", "d.png"]
    assert (voc / "VOC2012" / "ImageSets" / "Segmentation" / "aug.txt").read_text() == "c\nd\n"
    picture = Image.open(folder / "d.png")
    expected = np.arange(30).reshape(5, 6) % 21
    expected[0, 0] = 255
    assert picture.mode == "P" and picture.getpalette()[3:6] == [128, 0, 0]
    np.testing.assert_array_equal(np.asarray(picture), expected)
    assert len(PascalVOC([], str(voc), "trainaug")) == 3

    made = (folder / "c.png").stat().st_mtime_ns
    (folder / "d.png").write_bytes(b"")  # as a full disk leaves it
    augment_main(arguments)
    assert (folder / "c.png").stat().st_mtime_ns == made and (folder / "d.png").stat().st_size > 0
    augment_main([*arguments, "--force"])
    assert (folder / "c.png").stat().st_mtime_ns > made


def test_sbd_errors_name_the_file(sbd, monkeypatch):
    voc, root = sbd
    arguments = ["--voc_path", str(voc), "--sbd_path", str(root)]
    broken = root / "dataset" / "cls" / "c.mat"
    for content, text in ((b"no mat", "cannot be read"), (None, "no such file")):
        broken.write_bytes(content) if content else broken.unlink()
        with pytest.raises(DataError, match=f"c.mat: .*{text}"):
            augment_main(arguments)
    savemat(broken, {"GTcls": {"Segmentation": np.full((2, 2), 30)}})
    with pytest.raises(DataError, match=r"c.mat: class numbers \[30\]"):
        augment_main(arguments)
    assert not (voc / "VOC2012" / "ImageSets" / "Segmentation" / "aug.txt").exists()
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(UsageError, match="scipy"):
        augment_main(arguments)


def _context(tmp_path, **changes):
    categories = [{"id": 100 + i, "name": name} for i, name in enumerate(reversed(PASCAL_CONTEXT_59))]
    by_name = {entry["name"]: entry["id"] for entry in categories}
    images = [
        {"id": 1, "file_name": "x.jpg", "height": 5, "width": 6, "phase": "train"},
        {"id": 2, "file_name": "y.jpg", "height": 5, "width": 6, "phase": "val"},
    ]
    annotations = [
        {"id": 1, "image_id": 1, "category_id": by_name["wood"], "segmentation": [[1, 1, 4, 1, 4, 3, 1, 3]]},
        {"id": 2, "image_id": 1, "category_id": 7, "segmentation": [[0, 0, 5, 0, 5, 4, 0, 4]]},
        {"id": 3, "image_id": 2, "category_id": by_name["aeroplane"],
         "segmentation": {"size": [5, 6], "counts": [5, 10, 15]}},
    ]  # fmt: skip
    content = {"images": images, "categories": [*categories, {"id": 7, "name": "pen"}]}
    content |= {"annos_segmentation": annotations} | changes
    voc = tmp_path / "VOC2010"
    for name in "xy":
        _picture(voc / "JPEGImages" / f"{name}.jpg")
    (voc / "trainval_merged.json").write_text(json.dumps(content))
    return voc, content


def test_context_labels_and_image_sets(tmp_path):
    voc, _ = _context(tmp_path)
    assert context_main(["--voc_path", str(voc)]) == 0
    x, y = (np.asarray(Image.open(voc / "Context" / f"{name}.png")) for name in "xy")
    expected = np.zeros((5, 6), int)
    expected[1:4, 1:5] = 59  # the last class; the pen is none of the 59
    np.testing.assert_array_equal(x, expected)
    expected[:] = 0
    expected[:, 1:3] = 1  # run lengths go down the columns
    np.testing.assert_array_equal(y, expected)
    sets = voc / "ImageSets" / "Segmentation"
    assert [(sets / f"{s}_context.txt").read_text() for s in ("train", "val", "trainval")] == ["x\n", "y\n", "x\ny\n"]
    assert len(PascalContext([], str(voc), "trainval")) == 2
    made = (voc / "Context" / "x.png").stat().st_mtime_ns
    context_main(["--voc_path", str(voc)])
    assert (voc / "Context" / "x.png").stat().st_mtime_ns == made


def test_context_splits_of_voc_where_the_annotations_name_none(tmp_path):
    voc, content = _context(tmp_path)
    for image in content["images"]:
        del image["phase"]
        image["image_id"] = image.pop("id")  # as in the published file
    for category in content["categories"]:
        category["category_id"] = category.pop("id")
    (voc / "trainval_merged.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"train.txt"):
        context_main(["--voc_path", str(voc)])
    (voc / "ImageSets" / "Main").mkdir(parents=True)
    (voc / "ImageSets" / "Main" / "train.txt").write_text("y\nz\n")
    (voc / "ImageSets" / "Main" / "val.txt").write_text("x\n")
    context_main(["--voc_path", str(voc)])
    assert (voc / "ImageSets" / "Segmentation" / "train_context.txt").read_text() == "y\n"
    assert np.unique(np.asarray(Image.open(voc / "Context" / "x.png"))).tolist() == [0, 59]


def test_context_class_under_another_name_is_known_by_its_published_id(tmp_path):
    """The ids of trainval_merged.json follow the alphabet, as the classes do; some of them are known by heart."""
    known = {2: "aeroplane", 9: "bag", 23: "bicycle", 284: "person", 416: "train", 427: "tvmonitor", 458: "wood"}
    assert [PASCAL_CONTEXT_59[_PUBLISHED_IDS.index(number)] for number in known] == list(known.values())
    assert list(_PUBLISHED_IDS) == sorted(set(_PUBLISHED_IDS)) and len(_PUBLISHED_IDS) == 59
    renamed = {"table": "diningtable", "cloth": "clothes"}
    categories = [
        {"category_id": number, "name": renamed.get(name, name)}
        for number, name in zip(_PUBLISHED_IDS, PASCAL_CONTEXT_59, strict=True)
    ]
    table = categories[PASCAL_CONTEXT_59.index("table")]["category_id"]
    whole = [[0, 0, 5, 0, 5, 4, 0, 4]]
    annotations = [{"image_id": n, "category_id": table, "segmentation": whole} for n in (1, 2)]
    voc, _ = _context(tmp_path, categories=categories, annos_segmentation=annotations)
    assert context_main(["--voc_path", str(voc)]) == 0
    label = np.asarray(Image.open(voc / "Context" / "x.png"))
    assert (label == PASCAL_CONTEXT_59.index("table") + 1).all()

    categories[0]["category_id"], categories[1]["category_id"] = 9, 2  # a file with ids of its own
    voc, _ = _context(tmp_path, categories=categories, annos_segmentation=annotations)
    with pytest.raises(DataError, match="without cloth, table"):
        context_main(["--voc_path", str(voc), "--force"])


def test_context_errors_name_the_file(tmp_path):
    voc, content = _context(tmp_path)
    entry = content["annos_segmentation"][2]
    for change, text in (
        ({"annos_segmentation": [entry | {"segmentation": {"size": [5, 6], "counts": [5, 10]}}]}, "y.jpg.*15 pixels"),
        ({"categories": content["categories"][1:]}, "without wood"),
        ({"images": []}, "needs images"),
        ({"images": [i | {"id": 1} for i in content["images"]]}, "image id 1 belongs to both x.jpg and y.jpg"),
        ({"categories": [c | {"id": 1} for c in content["categories"]]}, "category id 1 belongs to both"),
        ({"annos_segmentation": [{"id": 1}]}, "no key 'image_id'"),
    ):
        _context(tmp_path, **change)
        with pytest.raises(DataError, match=f"trainval_merged.json: .*{text}"):
            context_main(["--voc_path", str(voc)])
    (voc / "trainval_merged.json").write_text("{")
    with pytest.raises(DataError, match="trainval_merged.json: cannot be read as JSON"):
        context_main(["--voc_path", str(voc)])


def _coco_text(counts):
    """The run lengths written as COCO does, independent of the reader."""
    text = ""
    for i, count in enumerate(counts):
        value = count - counts[i - 2] if i > 2 else count
        while True:
            low, value = value & 31, value >> 5
            last = value == (-1 if low & 16 else 0)
            text += chr(48 + (low if last else low | 32))
            if last:
                break
    return text


def test_compressed_run_lengths():
    rng = np.random.default_rng(0)
    for counts in ([0, 30], [5, 10, 15], [3, 1, 2000, 40, 7, 16, 15, 900], rng.integers(0, 5000, 60).tolist()):
        assert decode_counts(_coco_text(counts)) == counts
    mask = decode_mask({"size": [5, 6], "counts": _coco_text([5, 10, 15])}, 5, 6)
    assert mask.sum() == 10 and mask[:, 1:3].all()
