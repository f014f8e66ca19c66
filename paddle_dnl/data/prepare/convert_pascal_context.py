# SPDX-License-Identifier: Apache-2.0
"""Converts PASCAL Context (Mottaghi et al., CVPR 2014) from COCO-style JSON to label pictures with 59 classes and background.

Keys of the JSON file: `images` (`file_name`, `height`, `width`, `image_id` or `id`, optionally `phase`), `categories`
(`category_id` or `id`, and `name`; the published trainval_merged.json has the longer keys, COCO the shorter ones) and
`annos_segmentation` or `annotations` (`image_id`, `category_id`, `segmentation`: polygons, or run lengths as a list or in
COCO's compressed text form).
"""

from collections import defaultdict
from pathlib import Path

from paddle_dnl.data.classes import PASCAL_CONTEXT_59
from paddle_dnl.data.images.list_files import read_image_set
from paddle_dnl.data.prepare.annotations import read_json, unique
from paddle_dnl.data.prepare.label_files import is_done, write_label, write_names
from paddle_dnl.errors import DataError
from paddle_dnl.files.outputs import check_outputs
from paddle_dnl.log import logger, progress

import cv2
import numpy as np

# Category ids of trainval_merged.json in the order of the 59 classes that is used with this file everywhere.
_PUBLISHED_IDS = (
    2, 9, 18, 19, 22, 23, 25, 31, 33, 34, 44, 45, 46, 59, 65, 68, 72, 80, 85, 98,
    104, 105, 113, 115, 144, 158, 159, 162, 187, 189, 207, 220, 232, 258, 259, 260, 284, 295, 296, 308,
    324, 326, 347, 349, 354, 355, 360, 366, 368, 397, 415, 416, 420, 424, 427, 440, 445, 454, 458,
)  # fmt: skip
_NUMBERS = {name: number for number, name in enumerate(PASCAL_CONTEXT_59, start=1)}


def decode_counts(text: str) -> list[int]:
    """Decodes COCO's compressed run lengths: five bits per character, offset '0'; from the third run on differences."""
    counts, position = [], 0
    while position < len(text):
        value, shift, more = 0, 0, True
        while more:
            code = ord(text[position]) - 48
            value |= (code & 31) << shift
            more, shift, position = bool(code & 32), shift + 5, position + 1
        if code & 16:  # sign bit
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
    return counts


def decode_mask(segmentation, height: int, width: int) -> np.ndarray:
    """The mask `[H, W]` (bool) of polygons or run lengths (in column order, starting with background pixels).

    Raises:
        ValueError: neither of the two, or of another size.
    """
    if isinstance(segmentation, list):
        mask = np.zeros((height, width), np.uint8)
        for polygon in segmentation:
            points = np.asarray(polygon, np.float64).reshape(-1, 2)
            cv2.fillPoly(mask, [np.rint(points).astype(np.int32)], 1)
        return mask.astype(bool)
    counts, size = segmentation["counts"], list(segmentation.get("size", (height, width)))
    counts = decode_counts(counts) if isinstance(counts, str) else list(counts)
    if size != [height, width] or sum(counts) != height * width or min(counts) < 0:
        raise ValueError(f"run lengths of {sum(counts)} pixels, size {size}, in an image of {height}x{width}")
    inside = np.arange(len(counts)) % 2 == 1
    return np.repeat(inside, counts).reshape((width, height)).T


def _id(entry: dict, long_key: str) -> int:
    return entry[long_key] if long_key in entry else entry["id"]


def _class_numbers(categories: list[dict], path: Path) -> dict[int, int]:
    """Category id -> class number 1 to 59; the other categories of the 459 are background.

    Categories are found by name. A class with another name is found by its published id, if all other ids are as published.
    """
    named = ((_id(entry, "category_id"), str(entry["name"]).strip(), repr(entry["name"])) for entry in categories)
    names = unique(named, path, "category id")
    found = {number: _NUMBERS[name] for number, name in names.items() if name in _NUMBERS}
    missing = [name for name in PASCAL_CONTEXT_59 if _NUMBERS[name] not in found.values()]
    published = dict(zip(_PUBLISHED_IDS, _NUMBERS.values(), strict=True))
    if missing and found and set(published) <= set(names) and found.items() <= published.items():
        for name in missing:
            number = _PUBLISHED_IDS[_NUMBERS[name] - 1]
            logger.warning(f"{path}: category {number}, {names[number]!r}, is taken for {name}, which has this id")
        return published
    if missing:
        raise DataError(f"{path}: categories: without {', '.join(missing[:5])} ({len(missing)} of 59 missing)")
    return found


def _paint(image: dict, annotations: list[dict], numbers: dict[int, int], path: Path) -> np.ndarray:
    """The label picture of one image; later masks cover earlier ones."""
    label = np.zeros((image["height"], image["width"]), np.uint8)
    for entry in annotations:
        number = numbers.get(entry["category_id"])
        if number is None:
            continue
        try:
            label[decode_mask(entry["segmentation"], *label.shape)] = number
        except (ValueError, KeyError, IndexError, TypeError, cv2.error) as error:
            raise DataError(f"{path}: {image['file_name']}: segmentation {entry.get('id')}: {error}") from error
    return label


def _splits(images: list[dict], sets: Path, path: Path) -> dict[str, list[str]]:
    """Split -> image names, from `phase` in the annotations, else from train.txt and val.txt of VOC 2010."""
    names = {Path(image["file_name"]).stem: image.get("phase") for image in images}
    found = {split: sorted(name for name, phase in names.items() if phase == split) for split in ("train", "val")}
    if not any(names.values()):
        main = sets.parent / "Main"
        found = {split: sorted(set(read_image_set(main / f"{split}.txt")) & set(names)) for split in ("train", "val")}
    for split, members in found.items():
        if not members:
            raise DataError(f"{path}: no images of the split {split}")
    return found | {"trainval": sorted(found["train"] + found["val"])}


def convert(voc_path: str | Path, annotation: str | Path | None = None, force: bool = False) -> int:
    """Writes `Context/*.png` and `ImageSets/Segmentation/{train,val,trainval}_context.txt` into the VOC2010 folder.

    Labels: 0 background, 1 to 59 in the order of `PASCAL_CONTEXT_59`. The image sets are written last.

    Args:
        voc_path: the `VOC2010` folder.
        annotation: the JSON file; default `trainval_merged.json` in that folder.
        force: convert also images whose label picture is up to date.

    Returns:
        Number of images.

    Raises:
        DataError: a file that cannot be read, or an annotation that cannot be painted.
    """
    voc = Path(voc_path)
    path = Path(annotation) if annotation else voc / "trainval_merged.json"
    content, sets = read_json(path), voc / "ImageSets" / "Segmentation"
    annotations = content.get("annos_segmentation", content.get("annotations")) if isinstance(content, dict) else None
    if annotations is None or not content.get("images") or "categories" not in content:
        raise DataError(f"{path}: needs images, categories and annos_segmentation (or annotations)")
    images = content["images"]
    try:
        numbers = _class_numbers(content["categories"], path)
        unique(((_id(i, "image_id"), i["file_name"], i["file_name"]) for i in images), path, "image id")
        unique(((Path(i["file_name"]).stem, i["file_name"], i["file_name"]) for i in images), path, "the name")
        splits = _splits(images, sets, path)
        by_image = defaultdict(list)
        for entry in annotations:
            by_image[entry["image_id"]].append(entry)
        wanted = set(splits["trainval"])
        check_outputs((sets / f"{split}_context.txt" for split in splits), [path], root=voc)
        for image in progress(images, "convert", len(images)):
            name = Path(image["file_name"]).stem
            target = voc / "Context" / f"{name}.png"
            if name in wanted and (force or not is_done(path, target)):
                label = _paint(image, by_image[_id(image, "image_id")], numbers, path)
                write_label(target, label, replace=force)
    except KeyError as error:
        raise DataError(f"{path}: an entry has no key {error}") from error
    for split, names in splits.items():
        write_names(sets / f"{split}_context.txt", names)
    logger.info(f"{voc}: {len(splits['trainval'])} label pictures")
    return len(splits["trainval"])
