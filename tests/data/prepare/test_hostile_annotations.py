# SPDX-License-Identifier: Apache-2.0
"""Annotations of strangers through `data import`: sizes, nesting, entities, names and values that once ended it with a traceback.

Each case is one file of a format with one hostile value. `data import` ends with an error that names it, in bounded time and
memory, and writes nothing outside of its folder.
"""

import base64
import io
import json
import resource
import struct
import subprocess
import sys
import zlib
from pathlib import Path

from paddle_dnl.cli.data import import_data
from paddle_dnl.data.prepare.formats import masks
from paddle_dnl.errors import DataError

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[3]
POLYGON = [[1, 1, 4, 1, 4, 3]]
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 6\n%%EndComments\nshowpage\n"
_ENTITIES = "".join(f"<!ENTITY a{i} '{f'&a{i - 1};' * 10}'>" for i in range(1, 10))
LAUGHS = f"<!DOCTYPE a [<!ENTITY a0 'lol'>{_ENTITIES}]>"


def _png_header(width: int, height: int) -> bytes:
    """A PNG that announces a size and holds no pixels."""
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    parts = [(b"IHDR", head), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _coco(**more) -> str:
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": 6, "width": 8}],
        "categories": [{"id": 1, "name": "car"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": POLYGON}],
    }
    annotation = {key: more.pop(key) for key in ("image_id", "category_id", "segmentation") if key in more}
    content["annotations"][0].update(annotation)
    return json.dumps(content | more)


def _labelme(**more) -> str:
    shape = {"label": "car", "shape_type": "polygon", "points": [[1, 1], [4, 1], [4, 3]]} | more
    if "mask" in more:
        shape["mask"] = base64.b64encode(more["mask"]).decode()
    return json.dumps({"imagePath": "a.png", "imageWidth": 8, "imageHeight": 6, "shapes": [shape]})


def _cvat(shape: str = "<polygon label='car' points='1,1;4,1;4,3'/>", name="a.png", head="", labels="") -> str:
    image = f"<image id='0' name='{name}' width='8' height='6'>{shape}</image>"
    return f"<?xml version='1.0'?>{head}<annotations><meta>{labels}</meta>{image}</annotations>"


def _rle(**more) -> str:
    attributes = {"left": 0, "top": 0, "width": 8, "height": 6, "rle": "48"} | more
    return _cvat("<mask label='car' " + " ".join(f"{key}='{value}'" for key, value in attributes.items()) + "/>")


MASK = {"shape_type": "mask", "points": [[0, 0], [7, 5]]}
CASES = {
    # Sizes: pycocotools allocates what a file says, and crashes where it cannot.
    "coco, size 1e5": ("coco", _coco(segmentation={"size": [10**5, 10**5], "counts": "04"}), "the picture has"),
    "coco, size 1e9": ("coco", _coco(segmentation={"size": [10**9, 10**9], "counts": [10**18]}), "the picture has"),
    "coco, counts 1e9": ("coco", _coco(segmentation={"size": [6, 8], "counts": [10**9]}), "cannot be decoded"),
    "cvat, run of 3e9": ("cvat", _rle(rle="3000000000,1"), "run lengths"),
    "cvat, negative run": ("cvat", _rle(rle="-5,53"), "run lengths"),
    "cvat, box 1e5": ("cvat", _rle(width=10**5, height=10**5, rle=10**10), "does not fit"),
    "labelme, mask 9000": ("labelme", _labelme(**MASK, mask=_png_header(9000, 9000)), "leaves the picture"),
    # Another format than a mask's: PostScript would start a program.
    "labelme, PostScript": ("labelme", _labelme(**MASK, mask=POSTSCRIPT), "its mask"),
    # Nesting and entities.
    "coco, deep": ("coco", "[" * 100_000, "cannot be read as JSON"),
    "labelme, deep": ("labelme", "[" * 100_000, "cannot be read as JSON"),
    "cvat, billion laughs": ("cvat", _cvat("<polygon label='&a9;' points='1,1;4,1;4,3'/>", head=LAUGHS), "DOCTYPE"),
    "cvat, file as entity": ("cvat", _cvat(head="<!DOCTYPE a [<!ENTITY x SYSTEM 'file:///etc/hosts'>]>"), "DOCTYPE"),
    # Names that lead elsewhere, or add a line to a list.
    "coco, ../": ("coco", _coco(images=[{"id": 1, "file_name": "../a.png"}]), "leads out"),
    "coco, .": ("coco", _coco(images=[{"id": 1, "file_name": "."}]), "leads out"),
    "cvat, ../": ("cvat", _cvat(name="../a.png"), "leads out"),
    "coco, line break": (
        "coco",
        _coco(images=[{"id": 1, "file_name": "a\nb.png"}], annotations=[]),
        "control characters",
    ),
    "coco, zero byte": ("coco", _coco(images=[{"id": 1, "file_name": "a\0.png"}]), "control characters"),
    "coco, class of two lines": ("coco", _coco(categories=[{"id": 1, "name": "car\nevil 1 2 3"}]), "line break"),
    # Values of other types.
    "coco, images of text": ("coco", _coco(images=["a.png"]), "images.0"),
    "coco, no id": ("coco", _coco(categories=[{"name": "car"}]), "categories.0"),
    "coco, image_id": ("coco", _coco(image_id=[1]), "image_id"),
    "coco, category_id": ("coco", _coco(category_id={}), "category_id"),
    "coco, 400 digits": ("coco", _coco(segmentation=[[10**400, 1, 4, 1, 4, 3]]), "not .x, y. pairs"),
    "labelme, 400 digits": ("labelme", _labelme(shape_type="circle", points=[[10**400, 0], [7, 5]]), "two points"),
    "labelme, infinite": ("labelme", _labelme(shape_type="mask", points=[[float("-inf"), 0], [7, 5]]), "two points"),
    "cvat, infinite box": ("cvat", _cvat("<box label='car' xtl='nan' ytl='1' xbr='4' ybr='1e30'/>"), "a coordinate"),
    # Entries that would replace each other.
    "coco, image id twice": (
        "coco",
        _coco(images=[{"id": 1, "file_name": "a.png"}, {"id": 1, "file_name": "b.png"}]),
        "a.json: image id 1 belongs to both 'a.png' and 'b.png'",
    ),
    "coco, category id twice": (
        "coco",
        _coco(categories=[{"id": 1, "name": "car"}, {"id": 1, "name": "bus"}]),
        "a.json: category id 1 belongs to both 'car' and 'bus'",
    ),
    "coco, category name twice": (
        "coco",
        _coco(categories=[{"id": 1, "name": "car"}, {"id": 2, "name": "car "}]),
        "source: two categories are called 'car'; rename one, or make them one with --classes",
    ),
    "coco, image twice": (
        "coco",
        _coco(images=[{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "a.png"}]),
        "a.json: lists .*a.png twice",
    ),
    "coco, images of one name": (
        "coco",
        _coco(images=[{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "a.jpg"}]),
        "a.png and .*a.jpg would both become a",
    ),
    "cvat, colour": (
        "cvat",
        _cvat(labels="<labels><label><name>car</name><color>#zz</color></label></labels>"),
        "#rrggbb",
    ),
}


def _write(folder: Path, kind: str, content: str) -> Path:
    (folder / "images").mkdir(parents=True)
    for path in (folder / "a.png", folder / "images" / "a.png"):
        Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(path)
    (folder / ("annotations.xml" if kind == "cvat" else "a.json")).write_text(content)
    return folder


@pytest.mark.parametrize("case", CASES)
def test_one_hostile_value_is_one_error(tmp_path, case):
    kind, content, says = CASES[case]
    source = _write(tmp_path / "source", kind, content)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30), limits[1]))
    try:
        with pytest.raises(DataError, match=says):
            import_data.main([str(source), "--to", str(tmp_path / "to"), "--format", kind, "--num_workers", "1"])
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    assert {path.name for path in tmp_path.iterdir()} <= {"source", "to"}


def test_harmless_ones_are_imported(tmp_path):
    repeated = _coco(images=[{"id": 1, "file_name": "a.png"}] * 2, categories=[{"id": 1, "name": "car"}] * 2)
    cases = {"coco": ("coco", _coco()), "labelme": ("labelme", _labelme()), "cvat": ("cvat", _cvat())}
    for name, (kind, content) in (cases | {"merged": ("coco", repeated)}).items():
        source = _write(tmp_path / name, kind, content)
        assert import_data.main([str(source), "--to", str(tmp_path / f"{name}_to"), "--format", kind]) == 0
        assert (tmp_path / f"{name}_to" / "labels" / "a.png").is_file()


@pytest.mark.parametrize("kind", ["voc", "masks", "labelme"])
def test_two_pictures_for_one_mask_are_both_named(tmp_path, kind):
    for name in ("JPEGImages/a.png", "JPEGImages/a.jpg", "SegmentationClass/a.png"):
        (tmp_path / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((6, 8), np.uint8)).save(tmp_path / "source" / name)
    source = tmp_path / "source"
    if kind == "labelme":
        source = source / "JPEGImages"
        (source / "a.json").write_text(_labelme().replace("a.png", "moved.png"))
    words = [str(source), "--to", str(tmp_path / "to"), "--format", kind, "--num_workers", "1"]
    with pytest.raises(DataError, match="JPEGImages/a.jpg and .*JPEGImages/a.png"):
        import_data.main(words)
    if kind == "voc":
        (source / "JPEGImages/a.jpg").unlink()
        (source / "SegmentationClass/b").mkdir()
        (source / "SegmentationClass/b/a.png").write_bytes((source / "SegmentationClass/a.png").read_bytes())
        with pytest.raises(
            DataError, match="Class/a.png and .*Class/b/a.png both belong to .*JPEGImages/a.png; remove one"
        ):
            import_data.main(words)


@pytest.mark.parametrize(
    "read", [masks.color_array, lambda path: masks.from_binary(path, 128)], ids=["colours", "binary"]
)
def test_masks_are_of_formats_that_keep_their_colours(tmp_path, read):
    """PostScript would start a program, WebP changes colours."""
    image = io.BytesIO()
    Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(image, "WEBP")
    for content in (POSTSCRIPT, image.getvalue()):
        (tmp_path / "a.png").write_bytes(content)
        with pytest.raises(DataError, match="a.png: is not a readable label picture"):
            read(tmp_path / "a.png")


def test_the_program_says_it_in_one_line(tmp_path):
    source = _write(tmp_path / "source", "cvat", CASES["cvat, billion laughs"][1])
    command = [sys.executable, "-m", "paddle_dnl", "data", "import", str(source), "--to", str(tmp_path / "to")]
    done = subprocess.run([*command, "--format", "cvat"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "DOCTYPE" in done.stderr
