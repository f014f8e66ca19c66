# SPDX-License-Identifier: Apache-2.0
"""labelme: one JSON file beside each picture."""

import base64
import io
import reprlib
from functools import partial
from pathlib import Path, PureWindowsPath

from paddle_dnl.data.images.image_files import walk_files
from paddle_dnl.data.prepare.annotations import Sample, Shape, circle, read_json, rectangle, ring
from paddle_dnl.errors import DataError

import numpy as np
from PIL import Image

_NO_AREA = ("point", "points", "line", "linestrip")


def _mask(height: int, width: int, text: str, source: Path, where: str) -> np.ndarray:
    """Decodes a mask, which labelme stores as base64 of a PNG; `[h, w]` bool."""
    try:
        with Image.open(io.BytesIO(base64.b64decode(text)), formats=["PNG"]) as picture:
            if picture.width > width or picture.height > height:
                raise DataError(
                    f"{source}: {where}: its mask of {picture.width}x{picture.height} leaves the picture of {width}x{height}"
                )
            mask = np.array(picture) != 0
    except DataError:
        raise
    except Exception as error:  # Pillow raises many kinds of exceptions for damaged files
        raise DataError(f"{source}: {where}: its mask cannot be read ({error})") from error
    if mask.ndim != 2:
        raise DataError(f"{source}: {where}: its mask has colours, expected one channel")
    return mask


def _shape(entry, number: int, source: Path) -> Shape:
    where = f"shape {number}"
    label = entry.get("label") if isinstance(entry, dict) else None
    if not isinstance(label, str) or not (label := label.strip()):
        raise DataError(f"{source}: {where}: has no label")
    where = f"{where} ({label})"
    kind, points = entry.get("shape_type") or "polygon", entry.get("points")
    if kind in _NO_AREA:
        raise DataError(f"{source}: {where}: is a {kind}, which has no area; remove it or draw a polygon")
    if kind not in ("polygon", "rectangle", "circle", "mask"):
        raise DataError(f"{source}: {where}: unknown shape_type {kind!r}")
    if kind == "polygon":
        return Shape(label, where, (ring(points, source, where),))
    try:
        (x0, y0), (x1, y1) = np.asarray(points, np.float64)[:2]
        corner = (round(min(x0, x1)), round(min(y0, y1)))
    except (TypeError, ValueError, IndexError, OverflowError) as error:
        raise DataError(f"{source}: {where}: a {kind} has two points, got {reprlib.repr(points)}") from error
    if kind == "mask":
        text = entry.get("mask")
        return Shape(label, where, mask=partial(_mask, text=text, source=source, where=where), corner=corner)
    made = circle((x0, y0), (x1, y1)) if kind == "circle" else rectangle(x0, y0, x1, y1)
    return Shape(label, where, (ring(made, source, where),))


def _image_of(content: dict, source: Path, folder: Path) -> Path:
    """The picture in `folder` that a JSON file names, or else the one with the name of the JSON file."""
    named = content.get("imagePath")
    if isinstance(named, str) and named:
        # On Windows the path has backslashes. Only the file name is used.
        path = folder / PureWindowsPath(named).name
        if path.is_file():
            return path
    same = [path for path in walk_files(folder, depth=0) if path.stem == source.stem]
    if not same:
        raise DataError(f"{source}: its picture {named!r} is not in {folder}; --images names another folder")
    if len(same) > 1:
        raise DataError(
            f"{source}: its picture {named!r} is not there, and {same[0]} and {same[1]} both have its name; correct imagePath"
        )
    return same[0]


def read(root: Path, images: Path | None = None) -> list[Sample]:
    """The samples of a folder and its subfolders. An error in a sample is stored in its `problem`.

    Args:
        root: folder of the JSON files.
        images: folder of the pictures, with the same subfolders or without subfolders; by default beside the JSON files.
    """
    samples = []
    for source in walk_files(root, (".json",)):
        name = source.relative_to(root).with_suffix("").as_posix()
        sample = Sample(name, source, source)
        samples.append(sample)
        try:
            content = read_json(source)
            if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
                raise DataError(f"{source}: has no list of shapes; is it labelme's?")
            folder = source.parent
            if images is not None:
                folder = images / source.parent.relative_to(root)
                folder = folder if folder.is_dir() else images
            sample.image = _image_of(content, source, folder)
            width, height = content.get("imageWidth"), content.get("imageHeight")
            if isinstance(width, int) and isinstance(height, int):
                sample.size = (width, height)
            sample.shapes = [_shape(entry, i, source) for i, entry in enumerate(content["shapes"])]
        except DataError as error:
            sample.problem = str(error)
    if not samples:
        raise DataError(f"{root}: no .json files of labelme there")
    return samples
