# SPDX-License-Identifier: Apache-2.0
"""CVAT for images 1.1: one annotations.xml with polygons, boxes, ellipses and masks."""

import re
from functools import partial
from pathlib import Path
from xml.etree import ElementTree
from xml.parsers import expat

from paddle_dnl.data.classes import ClassInfo
from paddle_dnl.data.prepare.annotations import (
    Sample,
    Shape,
    ellipse,
    picture_path,
    rectangle,
    ring,
    rotated,
    source_classes,
)
from paddle_dnl.errors import DataError
from paddle_dnl.files.reading import read_bytes

import numpy as np

_OUTLINES = {"box": (rectangle, ("xtl", "ytl", "xbr", "ybr")), "ellipse": (ellipse, ("cx", "cy", "rx", "ry"))}
_AREAS = ("polygon", *_OUTLINES, "mask")


def _mask(
    picture_height: int, picture_width: int, counts: list[int], height: int, width: int, source: Path, where: str
) -> np.ndarray:
    """Decodes run lengths in row order over the mask's box, starting with background pixels."""
    if not (0 < height <= picture_height and 0 < width <= picture_width):
        raise DataError(
            f"{source}: {where}: its box of {width}x{height} does not fit a picture of {picture_width}x{picture_height}"
        )
    if min(counts, default=0) < 0 or sum(counts) != height * width:
        raise DataError(f"{source}: {where}: its run lengths have {sum(counts)} pixels, its box {height * width}")
    return np.repeat(np.arange(len(counts)) % 2, counts).reshape(height, width)


def _shape(entry: ElementTree.Element, number: int, source: Path, image: str) -> Shape:
    label = (entry.get("label") or "").strip()
    where = f"image {image}, {entry.tag} {number} ({label})"
    if not label:
        raise DataError(f"{source}: {where}: has no label")
    try:
        if entry.tag == "polygon":
            points = [[float(v) for v in pair.split(",")] for pair in entry.get("points", "").split(";")]
            return Shape(label, where, (ring(points, source, where),))
        if entry.tag in _OUTLINES:
            make, keys = _OUTLINES[entry.tag]
            outline = make(*(float(entry.attrib[key]) for key in keys))
            return Shape(label, where, (ring(rotated(outline, float(entry.get("rotation", 0))), source, where),))
        left, top, width, height = (int(entry.attrib[key]) for key in ("left", "top", "width", "height"))
        counts = [int(value) for value in entry.attrib["rle"].replace(",", " ").split()]
        mask = partial(_mask, counts=counts, height=height, width=width, source=source, where=where)
        return Shape(label, where, mask=mask, corner=(left, top))
    except (KeyError, ValueError) as error:
        raise DataError(f"{source}: {where}: cannot be read ({type(error).__name__}: {error})") from error


def _classes(root: ElementTree.Element, source: Path) -> ClassInfo | None:
    names, colors = [], []
    for label in root.iterfind(".//labels/label"):
        names.append(label.findtext("name", "").strip())
        text = (label.findtext("color") or "").lstrip("#")
        if text and not re.fullmatch("[0-9a-fA-F]{6}", text):
            raise DataError(f"{source}: label {names[-1]!r}: its color {text!r} is not of the form #rrggbb")
        colors.append([int(text[i : i + 2], 16) for i in (0, 2, 4)] if text else None)
    if not names:
        return None
    return source_classes(names, None if None in colors else colors, source)


def _root(source: Path) -> ElementTree.Element:
    """The root of the XML file. A DOCTYPE is refused: its entities could read other files or expand without bounds."""

    def refuse_doctype(*_):
        raise ValueError("it has a DOCTYPE, which may define entities; CVAT writes none")

    try:
        content = read_bytes(source)
        scan = expat.ParserCreate()
        scan.StartDoctypeDeclHandler = refuse_doctype
        scan.Parse(content, True)
        return ElementTree.fromstring(content)
    except (OSError, ValueError, expat.ExpatError, ElementTree.ParseError, RecursionError) as error:
        raise DataError(f"{source}: cannot be read as XML ({error})") from error


def read(source: Path, images: Path | None) -> tuple[list[Sample], ClassInfo | None]:
    """The samples of an `annotations.xml`, and its labels with their colours.

    Args:
        source: the file, or its folder.
        images: folder of the pictures; by default `images` beside the file, or the folder of the file.
    """
    source = source / "annotations.xml" if source.is_dir() else source
    root = _root(source)
    samples = []
    for entry in root.iterfind("image"):
        name = entry.get("name") or ""
        folders = [images] if images else [source.parent / "images", source.parent]
        path = picture_path(name, folders, source, "image name")
        sample = Sample(Path(name).with_suffix("").as_posix(), path, source)
        samples.append(sample)
        try:
            sample.size = (int(entry.attrib["width"]), int(entry.attrib["height"]))
            shapes = []
            for number, child in enumerate(entry):
                if child.tag == "tag":  # a label of the whole picture, without a region
                    continue
                if child.tag not in _AREAS:
                    raise DataError(
                        f"{source}: image {name}, {child.tag} {number}: has no area; remove it or draw a polygon"
                    )
                shapes.append((int(child.get("z_order", 0)), _shape(child, number, source, name)))
            # A stable sort: with equal z_order later shapes cover earlier ones.
            sample.shapes = [shape for _, shape in sorted(shapes, key=lambda pair: pair[0])]
        except (KeyError, ValueError) as error:
            sample.problem = f"{source}: image {name}: cannot be read ({type(error).__name__}: {error})"
        except DataError as error:
            sample.problem = str(error)
    if not samples:
        raise DataError(f"{source}: lists no images; export as `CVAT for images 1.1`")
    return samples, _classes(root, source)
