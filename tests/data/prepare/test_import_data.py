# SPDX-License-Identifier: Apache-2.0
"""Annotations of every format become the label pictures that they mean, or an error that names file and shape."""

import json
import os
import re
import shutil
import signal
from pathlib import Path

from paddle_dnl.cli.data import import_data
from paddle_dnl.data.classes import read_classes
from paddle_dnl.data.prepare import import_data as module
from paddle_dnl.errors import DataError, UsageError

import annotated
import cv2
import numpy as np
import pytest
from PIL import Image


def _import(source, to, *more):
    return import_data.main([str(source), "--to", str(to), "--num_workers", "1", *map(str, more)])


def _label(root, name):
    with Image.open(root / "labels" / f"{name}.png") as picture:
        return np.array(picture)


def _agree(label, truth):
    """Share of equal pixels: rasterisers differ on contours."""
    assert label.shape == truth.shape
    return (label == truth).mean()


def _state(folder: Path) -> dict:
    return {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("workers", [1, 2])
def test_labelme(tmp_path, workers):
    source = annotated.write_labelme(tmp_path / "source", 4)
    before = _state(source)
    assert (
        import_data.main(
            [str(source), "--to", str(tmp_path / "d"), "--format", "labelme", "--num_workers", str(workers)]
        )
        == 0
    )
    assert _state(source) == before
    assert read_classes(tmp_path / "d" / "classes.txt").names == annotated.NAMES
    for seed in range(4):
        assert _agree(_label(tmp_path / "d", f"scene_{seed:02d}"), annotated.truth(seed)) > 0.99
        assert (tmp_path / f"d/images/scene_{seed:02d}.jpg").read_bytes() == (
            source / f"scene_{seed:02d}.jpg"
        ).read_bytes()
    assert (tmp_path / "d/all.txt").read_text().splitlines()[0] == "images/scene_00.jpg\tlabels/scene_00.png"


def test_a_killed_process_is_one_line_and_a_second_run_completes(tmp_path, monkeypatch):
    source = annotated.write_labelme(tmp_path / "source", 6)
    words = [str(source), "--to", str(tmp_path / "d"), "--format", "labelme", "--num_workers", "2"]
    read, caller = module.read_as_stored, os.getpid()

    def killed(path):
        if path.stem.endswith("05") and os.getpid() != caller:
            os.kill(os.getpid(), signal.SIGKILL)
        return read(path)

    monkeypatch.setattr(module, "read_as_stored", killed)
    with pytest.raises(DataError, match=r"a process that imports was killed.* of 6 are done, next .*scene_0\d.json"):
        import_data.main(words)
    monkeypatch.setattr(module, "read_as_stored", read)
    assert import_data.main(words) == 0
    assert len((tmp_path / "d/all.txt").read_text().splitlines()) == 6


def test_a_second_run_does_what_is_missing(tmp_path, monkeypatch):
    source, to = annotated.write_labelme(tmp_path / "source", 4), tmp_path / "d"
    _import(source, to, "--format", "labelme")
    before = _state(to)
    (to / "labels/scene_01.png").unlink()
    (source / "scene_02.json").touch()
    _import(source, to, "--format", "labelme")
    after = _state(to)
    changed = {p.name for p in before if p.suffix != ".txt" and p.suffix != ".json" and before[p] != after[p]}
    assert changed == {"scene_01.png", "scene_02.png"}
    _import(source, to, "--format", "labelme", "--classes", "background", "disc", "box")
    assert np.array_equal(_label(to, "scene_00") == 2, np.array(Image.open(to / "labels/scene_00.png")) == 2)
    assert _agree(_label(to, "scene_00"), np.array([0, 2, 1])[annotated.truth(0)]) > 0.99, "other classes: all anew"
    with pytest.raises(UsageError, match="holds an import of"):
        _import(annotated.write_labelme(tmp_path / "other", 1), to, "--format", "labelme")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("x")
    with pytest.raises(UsageError, match="holds files that no import wrote"):
        _import(source, tmp_path / "mine", "--format", "labelme")
    with pytest.raises(UsageError, match="inside of the source"):
        _import(source, source / "d", "--format", "labelme")


def test_what_a_full_disk_lacks_is_said_in_fitting_units(tmp_path, monkeypatch):
    source, usage = annotated.write_labelme(tmp_path / "source", 3), shutil.disk_usage(tmp_path)
    size = sum(path.stat().st_size for path in source.glob("*.jpg"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=size))
    _import(source, tmp_path / "a", "--format", "labelme")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=size - 1))
    with pytest.raises(DataError, match=rf"the images alone take {size / 1000:.2f}kB, only {(size - 1) / 1000:.2f}kB"):
        _import(source, tmp_path / "b", "--format", "labelme")
    assert not (tmp_path / "b").exists()


def test_coco_with_polygons_and_run_lengths(tmp_path):
    path = annotated.write_coco(tmp_path / "source", 3)
    _import(path, tmp_path / "d", "--format", "coco")
    assert read_classes(tmp_path / "d/classes.txt").names == ("background", "box", "disc"), "in the order of their ids"
    for seed in range(3):
        assert _agree(_label(tmp_path / "d", str(seed)), annotated.truth(seed)) > 0.96


def test_cvat_paints_by_z_order(tmp_path):
    source = annotated.write_cvat(tmp_path / "source", 3)
    _import(source, tmp_path / "d", "--format", "cvat")
    classes = read_classes(tmp_path / "d/classes.txt")
    assert classes.names == annotated.NAMES and classes.colors[1] == annotated.COLORS["box"]
    for seed in range(3):
        assert _agree(_label(tmp_path / "d", str(seed)), annotated.truth(seed)) > 0.99


def _turned(x, y, width, height, degrees, inside) -> np.ndarray:
    """Pixels whose middle, turned back around (x, y), fulfils `inside(across, down)`, both in halves of the sides."""
    columns, rows = np.meshgrid(*(np.arange(side) + 0.5 for side in annotated.SIZE))
    angle = np.deg2rad(-degrees)
    across = np.cos(angle) * (columns - x) - np.sin(angle) * (rows - y)
    down = np.sin(angle) * (columns - x) + np.cos(angle) * (rows - y)
    return inside(across / (width / 2), down / (height / 2))


def test_cvat_ellipses_and_turned_boxes(tmp_path):
    """`rotation` is in degrees, clockwise; tags of whole pictures are no regions; a skeleton is refused."""
    source = annotated.write_cvat(tmp_path / "source", 1)
    shapes = """<tag label="box" source="manual"></tag>
        <box label="box" xtl="6" ytl="10" xbr="30" ybr="18" rotation="30.00" z_order="0"></box>
        <ellipse label="disc" cx="44" cy="26" rx="14" ry="5" rotation="300.00" z_order="1"></ellipse>"""
    text = (source / "annotations.xml").read_text()
    text = re.sub(r"(<image [^>]*>).*</image>", lambda found: f"{found[1]}{shapes}</image>", text, flags=re.DOTALL)
    (source / "annotations.xml").write_text(text)
    _import(source, tmp_path / "d", "--format", "cvat")
    label = _label(tmp_path / "d", "0")
    box = _turned(18, 14, 24, 8, 30, lambda u, v: (abs(u) <= 1) & (abs(v) <= 1))
    disc = _turned(44, 26, 28, 10, 300, lambda u, v: u * u + v * v <= 1)
    for number, wanted in ((1, box), (2, disc)):
        both, either = ((label == number) & wanted).sum(), ((label == number) | wanted).sum()
        assert both / either > 0.8 and both / wanted.sum() > 0.97, number  # contours are inside
    (source / "annotations.xml").write_text(text.replace("ellipse", "skeleton"))
    with pytest.raises(DataError, match=r"image 0.png, skeleton 2: has no area"):
        _import(source, tmp_path / "e", "--format", "cvat")


def test_labelme_files_in_a_folder_of_their_own(tmp_path):
    """As labelme's `--output` writes them, with paths of another system."""
    source, pictures = annotated.write_labelme(tmp_path / "json", 2), tmp_path / "pictures"
    (pictures / "sub").mkdir(parents=True)
    (source / "sub").mkdir()
    for path in source.glob("*.jpg"):
        path.rename(pictures / "sub" / path.name)
    for number in range(2):
        _break(source, number, lambda c: c.update(imagePath="..\\pictures\\sub\\" + c["imagePath"]))
        (source / f"scene_{number:02d}.json").rename(source / "sub" / f"scene_{number:02d}.json")
    with pytest.raises(DataError, match=r"its picture .* is not in .*json/sub; --images names another folder"):
        _import(source, tmp_path / "d", "--format", "labelme")
    for name, folder in (("e", pictures), ("f", pictures / "sub")):
        _import(source, tmp_path / name, "--format", "labelme", "--images", folder)
        assert _agree(_label(tmp_path / name, "sub/scene_01"), annotated.truth(1)) > 0.99
    for flags, message in (
        (("labelme", "--labels", source), "--labels is for masks"),
        (("voc", "--images", source), "--images cannot be used with --format voc"),
        (("coco", "--images", tmp_path / "none"), "--images .*none: no such folder"),
    ):
        with pytest.raises(UsageError, match=message):
            _import(source, tmp_path / "g", "--format", *flags)


def _masks(folder: Path, made) -> Path:
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for seed in range(2):
        cv2.imwrite(str(folder / f"images/{seed}.JPG"), annotated.picture(seed))
        Image.fromarray(made(annotated.truth(seed))).save(folder / f"masks/{seed}_mask.png")
    (folder / "images/._0.JPG").write_bytes(b"macOS")
    return folder


def test_masks_of_numbers_colours_and_two_values(tmp_path, capsys):
    table = np.array([annotated.COLORS[name] for name in annotated.NAMES], np.uint8)
    colored = _masks(tmp_path / "colors", lambda truth: table[truth])
    (tmp_path / "classes.txt").write_text("".join(f"{n} {r} {g} {b}\n" for n, (r, g, b) in annotated.COLORS.items()))
    _import(colored, tmp_path / "a", "--format", "color-masks", "--classes", tmp_path / "classes.txt")
    assert "(200, 40, 40) -> 1 (box)" in capsys.readouterr().out
    _import(colored, tmp_path / "b", "--format", "color-masks")
    binary = _masks(tmp_path / "binary", lambda truth: np.where(truth > 0, 255, 0).astype(np.uint8))
    _import(binary, tmp_path / "c", "--format", "binary-masks", "--classes", "ground", "thing")
    plain = _masks(tmp_path / "plain", lambda truth: np.where(truth == 2, 255, truth).astype(np.uint8))
    _import(plain, tmp_path / "e", "--format", "masks")
    for seed in range(2):
        truth = annotated.truth(seed)
        np.testing.assert_array_equal(_label(tmp_path / "a", str(seed)), truth)
        # Without names the colours are classes from the darkest on: background 270, box 280, disc 310.
        np.testing.assert_array_equal(_label(tmp_path / "b", str(seed)), truth)
        np.testing.assert_array_equal(_label(tmp_path / "c", str(seed)), truth > 0)
        np.testing.assert_array_equal(_label(tmp_path / "e", str(seed)), np.where(truth == 2, 255, truth))
    assert read_classes(tmp_path / "c/classes.txt").names == ("ground", "thing")
    (tmp_path / "classes.txt").write_text("background 90 90 90\nbox 200 40 40\n")
    with pytest.raises(DataError, match=r"0_mask.png: colour \(40, 60, 210\) \(\d+ pixels\) is no class"):
        _import(colored, tmp_path / "f", "--format", "color-masks", "--classes", tmp_path / "classes.txt")
    soft = _masks(tmp_path / "soft", lambda truth: cv2.GaussianBlur((truth > 0).astype(np.uint8) * 255, (5, 5), 0))
    with pytest.raises(DataError, match="a binary mask holds 0 and one other value"):
        _import(soft, tmp_path / "g", "--format", "binary-masks")
    _import(soft, tmp_path / "h", "--format", "binary-masks", "--threshold", 128)


def test_voc_palettes_and_cvats_labelmap(tmp_path):
    root = tmp_path / "VOCdevkit" / "VOC2012"
    table = np.array([annotated.COLORS[name] for name in annotated.NAMES], np.uint8)
    for name in ("JPEGImages", "SegmentationClass"):
        (root / name).mkdir(parents=True)
    cv2.imwrite(str(root / "JPEGImages/a.jpg"), annotated.picture(1))
    palette = Image.fromarray(annotated.truth(1))
    palette.putpalette(table.tobytes())
    palette.save(root / "SegmentationClass/a.png")
    _import(tmp_path / "VOCdevkit", tmp_path / "d", "--format", "voc")
    np.testing.assert_array_equal(_label(tmp_path / "d", "a"), annotated.truth(1))
    assert len(read_classes(tmp_path / "d/classes.txt").names) == 21
    lines = ["# label:color_rgb:parts:actions", *(f"{n}:{r},{g},{b}::" for n, (r, g, b) in annotated.COLORS.items())]
    (root / "labelmap.txt").write_text("\n".join(lines))
    _import(root, tmp_path / "e", "--format", "voc")
    np.testing.assert_array_equal(_label(tmp_path / "e", "a"), annotated.truth(1))
    assert read_classes(tmp_path / "e/classes.txt").names == annotated.NAMES


def _break(source: Path, number: int, change) -> None:
    path = source / f"scene_{number:02d}.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_wrong_annotations_are_named_and_skipped_only_when_told(tmp_path, capsys):
    source = annotated.write_labelme(tmp_path / "source", 9)
    _break(source, 0, lambda c: c["shapes"][1].update(points=[[1, 2], [3, 4]]))
    _break(source, 1, lambda c: c["shapes"][0].update(label="moon"))
    _break(source, 2, lambda c: c.update(imageWidth=65))
    (source / "scene_03.jpg").write_bytes((source / "scene_03.jpg").read_bytes()[:60])
    _break(source, 4, lambda c: c["shapes"][0].update(points=[[float("nan"), 1], [2, 3], [4, 5]]))
    _break(source, 5, lambda c: c["shapes"][0].update(points=[[900, 1], [902, 3], [904, 5]]))
    (source / "scene_06.json").write_text("{")
    _break(source, 7, lambda c: c["shapes"][0].update(shape_type="line"))
    arguments = (source, tmp_path / "d", "--format", "labelme", "--classes", *annotated.NAMES)
    with pytest.raises(DataError, match="8 of 9 samples cannot be imported") as caught:
        _import(*arguments)
    assert "scene_00.json: shape 1 (disc): a polygon needs three points" in str(caught.value)
    assert "... and 3 more" in str(caught.value) and not (tmp_path / "d/all.txt").exists()
    _import(*arguments, "--skip_bad_samples")
    said = capsys.readouterr().out
    for text in (
        "scene_01.json: shape 0 (moon): unknown class 'moon'; known are background, box, disc",
        "scene_02.json: is for a picture of 65x48",
        "scene_03.jpg: ",
        "scene_04.json: shape 0 (box): a coordinate is no number",
        "scene_05.json: shape 0 (box) (box): lies outside of the picture of 64x48",
        "scene_06.json: cannot be read",
        "scene_07.json: shape 0 (box): is a line, which has no area",
    ):
        assert text in said, text
    assert (tmp_path / "d/all.txt").read_text() == "images/scene_08.jpg\tlabels/scene_08.png\n"


def test_ignored_and_unlabelled_regions(tmp_path):
    source = annotated.write_labelme(tmp_path / "source", 1)
    _break(source, 0, lambda c: c["shapes"][1].update(label="ignore"))
    _import(source, tmp_path / "d", "--format", "labelme")
    truth = np.array([0, 1, 255])[annotated.truth(0)]
    assert _agree(_label(tmp_path / "d", "scene_00"), truth) > 0.99
    _import(source, tmp_path / "e", "--format", "labelme", "--classes", "box")
    assert set(np.unique(_label(tmp_path / "e", "scene_00"))) == {0, 255}, "without background nothing else is labelled"


def test_more_than_256_classes_are_not_wrapped(tmp_path):
    names = [f"c{i}" for i in range(300)]
    colors = np.array([(i % 256, i // 256, 9) for i in range(300)], np.uint8)
    text = "".join(f"{name} {r} {g} {b}\n" for name, (r, g, b) in zip(names, colors.tolist(), strict=True))
    (tmp_path / "classes.txt").write_text(text)
    wanted = annotated.truth(0).astype(np.uint16) + 297
    numbers = _masks(tmp_path / "numbers", lambda t: t.astype(np.uint16) + 297)
    shapes = annotated.write_labelme(tmp_path / "labelme", 2)
    for path in shapes.glob("*.json"):
        content = json.loads(path.read_text())
        for shape in content["shapes"]:
            shape["label"] = f"c{annotated.NAMES.index(shape['label']) + 297}"
        path.write_text(json.dumps(content))
    for source, kind, name in ((numbers, "masks", "0"), (shapes, "labelme", "scene_00")):
        root = tmp_path / f"{kind}_done"
        _import(source, root, "--format", kind, "--classes", tmp_path / "classes.txt")
        label, shown = _label(root, name), annotated.truth(0) > 0
        assert label.dtype == np.uint16, kind
        assert _agree(label[shown], wanted[shown]) > 0.95, kind
        assert kind == "labelme" or (label == wanted).all(), kind
        assert kind != "labelme" or set(label[~shown]) <= {65535, 298, 299}, (
            "without a class called background: ignored"
        )
    colored = _masks(tmp_path / "colors", lambda t: colors[t.astype(int) + 297])
    _import(colored, tmp_path / "colors_done", "--format", "color-masks", "--classes", tmp_path / "classes.txt")
    np.testing.assert_array_equal(_label(tmp_path / "colors_done", "0"), wanted)


@pytest.mark.parametrize(
    "first, count, ignored, wanted",
    [(0, 3, 255, 255), (0, 3, 65535, 255), (252, 255, 255, 255), (253, 256, 65535, 65535), (254, 257, 65535, 65535)],
)
def test_one_number_does_not_count_and_is_written_with_the_classes(tmp_path, first, count, ignored, wanted):
    """Classes `first` to `first` + 2 and an ignored corner; 255 is ignored until it is a class itself."""

    def made(truth):
        label = truth.astype(np.uint16) + first
        label[:9, :9] = ignored
        return label

    names = ["--classes", *(f"c{i}" for i in range(count))] if count == 256 else []  # otherwise as found
    _import(_masks(tmp_path / "s", made), tmp_path / "d", "--format", "masks", *names)
    label, corner = _label(tmp_path / "d", "0"), np.zeros(annotated.SIZE[::-1], bool)
    corner[:9, :9] = True
    np.testing.assert_array_equal(label, np.where(corner, wanted, annotated.truth(0).astype(int) + first))
    classes = read_classes(tmp_path / "d/classes.txt")
    assert len(classes.names) == count and classes.ignore_index == wanted
    assert f"# ignore_index: {wanted}\n" in (tmp_path / "d/classes.txt").read_text()


def test_the_number_that_does_not_count_can_be_told(tmp_path):
    source = _masks(tmp_path / "s", lambda truth: truth)
    (tmp_path / "classes.txt").write_text("# ignore_index: 2\nground\nbox\n")
    _import(source, tmp_path / "d", "--format", "masks", "--classes", tmp_path / "classes.txt")
    np.testing.assert_array_equal(_label(tmp_path / "d", "0"), np.array([0, 1, 255])[annotated.truth(0)])


def test_ignored_names_of_a_formats_own_list_are_no_classes(tmp_path):
    """`ignore` among CVAT's labels, COCO's categories, the colours of a labelmap or of `--classes`."""
    cvat = annotated.write_cvat(tmp_path / "cvat", 1) / "annotations.xml"
    cvat.write_text(cvat.read_text().replace("<name>disc<", "<name>ignore<").replace('label="disc"', 'label="ignore"'))
    coco = annotated.write_coco(tmp_path / "coco", 1)
    coco.write_text(coco.read_text().replace('"name": "disc"', '"name": "Void"'))
    table = np.array([annotated.COLORS[name] for name in annotated.NAMES], np.uint8)
    colored = _masks(tmp_path / "colors", lambda truth: table[truth])
    lines = [f"{n} {r} {g} {b}" for n, (r, g, b) in annotated.COLORS.items()]
    (tmp_path / "classes.txt").write_text("\n".join(lines).replace("disc", "ignore"))
    (colored / "images").rename(colored / "JPEGImages")
    (colored / "masks").rename(colored / "SegmentationClass")
    for path in (colored / "SegmentationClass").iterdir():
        path.rename(path.with_name(path.name.replace("_mask", "")))
    rows = [f"{n}:{r},{g},{b}::" for n, (r, g, b) in annotated.COLORS.items()]
    (colored / "labelmap.txt").write_text("\n".join(rows).replace("disc", "void"))
    wanted = np.array([0, 1, 255])[annotated.truth(0)]
    for source, kind, more in (
        (cvat.parent, "cvat", ()),
        (coco, "coco", ()),
        (colored, "voc", ()),
        (colored, "color-masks", ("--classes", tmp_path / "classes.txt")),
    ):
        _import(source, tmp_path / f"{kind}_done", "--format", kind, *more)
        assert read_classes(tmp_path / f"{kind}_done" / "classes.txt").names == ("background", "box"), kind
        assert _agree(_label(tmp_path / f"{kind}_done", "0"), wanted) > 0.96, kind
    (tmp_path / "classes.txt").write_text("ground 90 90 90\nbox 200 40 40\ndisc 200 40 40\n")
    with pytest.raises(DataError, match=r"class 'disc' has the colour \(200, 40, 40\) of another class"):
        _import(colored, tmp_path / "none", "--format", "color-masks", "--classes", tmp_path / "classes.txt")
