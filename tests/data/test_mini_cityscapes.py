"""The generator: deterministic, a real Cityscapes tree, all classes, and too hard for colours alone."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression

from paddle_dnl.data.convert_cityscapes import convert_tree
from paddle_dnl.data.datasets import Cityscapes
from paddle_dnl.data.file_lists import LAYOUTS, write_lists
from paddle_dnl.data.mini_cityscapes import generate, main
from paddle_dnl.engine.metrics import Metrics, confusion_matrix
from paddle_dnl.errors import DataError


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    out = generate(tmp_path_factory.mktemp("mini") / "data", train=24, val=8, size=(256, 128), seed=1)
    convert_tree(out, num_workers=1)
    return out


def _hashes(folder: Path) -> dict:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_same_seed_same_bytes(tmp_path):
    for name, seed, train in (("a", 3, 4), ("b", 3, 6), ("c", 4, 4)):
        generate(tmp_path / name, train=train, val=1, size=(128, 64), seed=seed)
    a, b, c = (_hashes(tmp_path / name) for name in "abc")
    settings = Path("mini_cityscapes.json")
    shared = set(a) - {settings}
    assert all(a[path] == b[path] for path in shared), "a picture depends on its own number only"
    assert all(a[path] != c[path] for path in shared if path.suffix == ".png")


def test_real_tree_conversion_and_dataset(tree):
    train, val = Cityscapes([], str(tree), "train"), Cityscapes([], str(tree), "val")
    assert (len(train), len(val)) == (24, 8)
    cities = {Path(image).parent.name for image, _ in train.file_list}
    assert len(cities) == 3 and not cities & {Path(image).parent.name for image, _ in val.file_list}
    sample = train[0]
    assert sample["img"].shape == (3, 128, 256) and sample["label"].shape == (128, 256)
    images, labels, image_end, label_end = LAYOUTS["cityscapes"]
    settings = {"images": images, "labels": labels, "image_end": image_end, "label_end": label_end}
    assert write_lists(tree, separator=",", **settings) == {"train": 24, "val": 8}


def test_all_classes_occur_in_both_splits(tree):
    for split in ("train", "val"):
        values = set()
        for path in tree.glob(f"gtFine/{split}/*/*labelTrainIds.png"):
            values |= set(np.unique(np.asarray(Image.open(path))).tolist())
        assert values == {*range(19), 255}


def test_polygons_are_whole_and_inside(tree):
    for path in tree.glob("gtFine/*/*/*_polygons.json"):
        scene = json.loads(path.read_text())
        for item in scene["objects"]:
            points = np.array(item["polygon"])
            assert len(points) >= 3 and points.min() >= 0
            assert points[:, 0].max() < scene["imgWidth"] and points[:, 1].max() < scene["imgHeight"]


def test_colour_alone_is_not_enough(tree):
    """At most 0.7 of the network's 0.50 and more; measured on the quick start's data: 0.09 beside its own mIoU."""

    def pixels(split, step):
        colours, labels = [], []
        for image in sorted(tree.glob(f"leftImg8bit/{split}/*/*.png")):
            label = str(image).replace("leftImg8bit.png", "gtFine_labelTrainIds.png").replace("leftImg8bit", "gtFine", 1)
            truth = np.asarray(Image.open(label)).ravel()
            keep = np.flatnonzero(truth != 255)[::step]
            colours.append(np.asarray(Image.open(image)).reshape(-1, 3)[keep] / 255.0)
            labels.append(truth[keep])
        return np.concatenate(colours), np.concatenate(labels)

    model = LogisticRegression(max_iter=200, class_weight="balanced")
    model.fit(*pixels("train", 40))
    colours, truth = pixels("val", 3)
    score = Metrics.from_confusion(confusion_matrix(model.predict(colours), truth, 19)).miou
    assert 0.02 < score < 0.7 * 0.50, score


def test_again_is_free_and_other_settings_are_refused(tmp_path):
    generate(tmp_path, train=1, val=0, size=(128, 64))
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.png")}
    generate(tmp_path, train=1, val=0, size=(128, 64))
    assert before == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.png")}
    with pytest.raises(DataError, match="other settings"):
        generate(tmp_path, train=2, val=0, size=(128, 64))


def test_bad_arguments(tmp_path):
    (tmp_path / "file").write_text("")
    for settings, message in (
        ({"train": -1}, "number of images"), ({"train": 0, "val": 0}, "at least one"), ({"size": (32, 64)}, "at least 64"),
        ({"seed": -1}, "must not be negative"),
    ):  # fmt: skip
        with pytest.raises(DataError, match=message):
            generate(tmp_path / "x", **settings)
    assert main(["--out", str(tmp_path / "file")]) == 1
    with pytest.raises(SystemExit) as caught:
        main(["--out", str(tmp_path / "y"), "--size", "512*256"])
    assert caught.value.code == 2 and not (tmp_path / "y").exists()


def test_as_a_program(tmp_path):
    command = [sys.executable, "-m", "paddle_dnl.data.mini_cityscapes", "--out", str(tmp_path / "d")]
    done = subprocess.run([*command, "--train", "1", "--val", "1", "--size", "64x64"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("d/leftImg8bit/*/*/*.png"))) == 2


def test_conversion_skips_names_and_refuses(tree, tmp_path):
    picture = next(tree.glob("gtFine/val/*/*labelTrainIds.png"))
    before = picture.stat().st_mtime_ns
    convert_tree(tree, num_workers=2)
    assert picture.stat().st_mtime_ns == before
    convert_tree(tree, num_workers=1, force=True)
    assert picture.stat().st_mtime_ns > before
    with pytest.raises(DataError, match="give the folder that holds gtFine"):
        convert_tree(tmp_path)
    broken = tmp_path / "gtFine" / "train" / "c" / "a_gtFine_polygons.json"
    broken.parent.mkdir(parents=True)
    broken.write_text("{")
    with pytest.raises(DataError, match="1 of 1 files.*\n.*a_gtFine_polygons.json"):
        convert_tree(tmp_path)
