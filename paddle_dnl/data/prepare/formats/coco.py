# SPDX-License-Identifier: Apache-2.0
"""COCO: one JSON file with polygons or run lengths for all pictures."""

from functools import partial
from pathlib import Path

from paddle_dnl.data.images.image_files import walk_files
from paddle_dnl.data.prepare.annotations import Sample, Shape, picture_path, read_json, ring, unique
from paddle_dnl.errors import DataError
from paddle_dnl.optional import not_installed

import numpy as np


def _decode(height: int, width: int, segmentation: dict, size: list, source: Path, where: str) -> np.ndarray:
    """Decodes run lengths, compressed or not, with pycocotools. `size` is checked first, since pycocotools allocates it."""
    try:
        from pycocotools import mask as coco_mask
    except ImportError as error:
        raise not_installed("COCO's run lengths", error, "data") from error
    if size != [height, width]:
        raise DataError(
            f"{source}: {where}: its run lengths are for [height, width] {size}, the picture has {[height, width]}"
        )
    try:
        if isinstance(segmentation["counts"], list):
            segmentation = coco_mask.frPyObjects(segmentation, *size)
        return coco_mask.decode(segmentation).astype(bool)
    except Exception as error:  # pycocotools raises many kinds of exceptions
        raise DataError(f"{source}: {where}: its run lengths cannot be decoded ({error})") from error


def _shape(entry: dict, categories: dict, source: Path) -> Shape:
    where = f"annotation {entry.get('id')}"
    category = entry.get("category_id")
    if not isinstance(category, int | str) or category not in categories:
        raise DataError(f"{source}: {where}: category_id {category!r} is not among the categories")
    name, segmentation = categories[category], entry.get("segmentation")
    if isinstance(segmentation, dict):
        size = segmentation.get("size")
        if not isinstance(size, list) or len(size) != 2 or "counts" not in segmentation:
            raise DataError(f"{source}: {where}: run lengths need `size` and `counts`")
        return Shape(
            name, where, mask=partial(_decode, segmentation=segmentation, size=size, source=source, where=where)
        )
    if not isinstance(segmentation, list) or not segmentation:
        raise DataError(f"{source}: {where}: has no segmentation, only a box; boxes are no labels of pixels")
    return Shape(name, where, tuple(ring(points, source, where) for points in segmentation))


def _content(source: Path) -> dict:
    content = read_json(source)
    for key, identified in (("images", True), ("annotations", False), ("categories", True)):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise DataError(f"{source}: no list `{key}`; is it a COCO file of instances?")
        for i, entry in enumerate(content[key]):
            if not isinstance(entry, dict) or (identified and type(entry.get("id")) not in (int, str)):
                raise DataError(f"{source}: {key}.{i}: is no mapping with an `id`")
    return content


def read(source: Path, images: Path | None) -> tuple[list[Sample], list[str]]:
    """The samples of a COCO file, and its category names in the order of their ids.

    Args:
        source: the JSON file, or a folder that contains one JSON file.
        images: folder of the pictures; by default the folder of the file, its subfolder `images`, or the folder above.
    """
    if source.is_dir():
        places = (source, source / "annotations")
        found = next(filter(None, (list(walk_files(place, (".json",), depth=0)) for place in places)), [])
        if len(found) != 1:
            raise DataError(f"{source}: {len(found)} .json files there; name the one to read")
        source = found[0]
    content = _content(source)
    named = [(entry["id"], entry.get("name"), repr(entry.get("name"))) for entry in content["categories"]]
    categories = unique(named, source, "category id")
    for number, name in categories.items():
        if not isinstance(name, str) or not name.strip():
            raise DataError(f"{source}: category {number!r}: has no name")
        categories[number] = name.strip()
    categories = dict(sorted(categories.items(), key=lambda item: (isinstance(item[0], str), item[0])))
    entries = unique(((e["id"], e, repr(e.get("file_name"))) for e in content["images"]), source, "image id")
    samples = {}
    for image_id, entry in entries.items():
        file_name = str(entry.get("file_name", ""))
        # Beside the annotations or in one of the usual folders.
        here, above = source.parent, source.parent.parent
        folders = [images] if images else [here, here / "images", above, above / "images"]
        image = picture_path(file_name, folders, source, f"image {image_id}: file_name")
        sample = Sample(Path(file_name).with_suffix("").as_posix(), image, source)
        if isinstance(entry.get("width"), int) and isinstance(entry.get("height"), int):
            sample.size = (entry["width"], entry["height"])
        samples[image_id] = sample
    for entry in content["annotations"]:
        image_id = entry.get("image_id")
        sample = samples.get(image_id) if isinstance(image_id, int | str) else None
        if sample is None:
            raise DataError(f"{source}: annotation {entry.get('id')}: image_id {image_id!r} is not among the images")
        try:
            sample.shapes.append(_shape(entry, categories, source))
        except DataError as error:
            sample.problem = sample.problem or str(error)
    return list(samples.values()), list(categories.values())
