# SPDX-License-Identifier: Apache-2.0
"""Existing masks, with class numbers, colours or two values, and PASCAL VOC's folders."""

import contextlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from paddle_dnl.data.classes import (
    PASCAL_VOC,
    ClassInfo,
    bit_palette,
    count_classes,
    ignored_number,
    named_classes,
)
from paddle_dnl.data.images.image_files import EXTENSIONS, walk_files
from paddle_dnl.data.images.list_files import lines
from paddle_dnl.data.images.reading import open_label, read_label
from paddle_dnl.data.prepare.annotations import IGNORED_NAMES, Sample, source_classes, unique
from paddle_dnl.errors import DataError
from paddle_dnl.log import logger

import numpy as np

_IMAGE_FOLDERS = ("images", "JPEGImages", "image", "imgs", "img")
_LABEL_FOLDERS = ("masks", "labels", "annotations", "SegmentationClass", "mask", "label", "gt")
_LABEL_SUFFIXES = ("", "_mask", "_label", "_labels", "_gt", "_seg", "_segmentation")
_IMAGE_SUFFIXES = ("", "_image", "_img", "_rgb", "_leftImg8bit")
# More colours than this are no classes, but a photograph or noise of a JPEG.
_MOST_COLORS = 256
# Masks of class numbers hold at least one of so many numbers.
_FEW = 4


def _folder(root: Path, given: Path | None, names: tuple[str, ...], what: str) -> Path:
    if given is not None:
        if not given.is_dir():
            raise DataError(f"{given}: no such folder of {what}")
        return given
    found = [root / name for name in names if (root / name).is_dir()]
    if not found:
        raise DataError(f"{root}: no folder of {what} there ({', '.join(names)}); name it with --{what}")
    return found[0]


def _stem(path: Path, folder: Path, suffixes: tuple[str, ...]) -> str:
    name = path.relative_to(folder).with_suffix("").as_posix()
    suffix = max((s for s in suffixes if s and name.endswith(s)), key=len, default="")
    return name[: len(name) - len(suffix)]


def pairs(root: Path, images: Path | None, labels: Path | None) -> list[Sample]:
    """Pairs pictures and label pictures below two folders by name, ignoring endings such as `_mask`.

    Args:
        root: folder that contains the two folders unless they are given.
        images, labels: the two folders.

    Raises:
        DataError: a folder does not exist, labels are missing, or two labels have the same name.
    """
    images, labels = _folder(root, images, _IMAGE_FOLDERS, "images"), _folder(root, labels, _LABEL_FOLDERS, "labels")
    by_name: dict[str, Path] = {}
    for path in walk_files(labels):
        name = _stem(path, labels, _LABEL_SUFFIXES)
        if images == labels and not any(path.stem.endswith(s) for s in _LABEL_SUFFIXES if s):
            continue
        if name in by_name:
            raise DataError(f"{by_name[name]} and {path} are labels of one name, {name}")
        by_name[name] = path
    samples, missing = [], []
    for path in walk_files(images, (*EXTENSIONS, ".npy")):
        if path in by_name.values():
            continue
        name = _stem(path, images, _IMAGE_SUFFIXES)
        if name not in by_name:
            missing.append(path)
            continue
        samples.append(Sample(name, path, by_name[name], label=by_name[name]))
    if missing:
        raise DataError(
            f"{labels}: {len(missing)} of {len(missing) + len(samples)} labels are missing, first that of {missing[0]}"
        )
    if not samples:
        raise DataError(f"{images}: no images there")
    paired = {sample.name for sample in samples}
    alone = [path for name, path in by_name.items() if name not in paired]
    if alone:
        logger.warning(f"{labels}: {len(alone)} labels belong to no picture in {images}, first {alone[0]}")
    return samples


def color_array(path: Path) -> np.ndarray:
    """The colour of each pixel of a picture as red * 65536 + green * 256 + blue, `[H, W]`.

    Raises:
        DataError: the file is unreadable, or a JPEG, whose colours are not exact.
    """
    with open_label(path) as picture:
        rgb = np.array(picture.convert("RGB")).astype(np.int64)
    return rgb[..., 0] << 16 | rgb[..., 1] << 8 | rgb[..., 2]


def rgb(color: int) -> tuple[int, int, int]:
    """(red, green, blue) of a value of `color_array`."""
    return color >> 16, color >> 8 & 255, color & 255


def count_colors(samples: list[Sample]) -> Counter:
    """Colour -> number of pixels in all masks. Unreadable masks are skipped; the conversion reports them.

    Raises:
        DataError: there are too many colours.
    """
    counts: Counter = Counter()
    for sample in samples:
        try:
            values, numbers = np.unique(color_array(sample.label), return_counts=True)
        except DataError:
            continue
        counts.update(dict(zip(values.tolist(), numbers.tolist(), strict=True)))
        if len(counts) > _MOST_COLORS:
            raise DataError(
                f"{sample.label}: more than {_MOST_COLORS} colours up to here; masks have one colour per class, without "
                "smooth edges"
            )
    return counts


def color_classes(samples: list[Sample], classes: ClassInfo | None) -> tuple[ClassInfo, dict[int, int]]:
    """The classes of colour masks, and colour -> class number.

    Args:
        samples: samples with `label`.
        classes: names and colours. Those named `ignore`, `void` and the like are ignored regions. Without it each colour that
            occurs is a class, the darkest first.
    """
    if classes is None:
        colors = sorted(count_colors(samples), key=lambda c: (sum(rgb(c)), c))
        names = ["background" if c == 0 else f"color_{'_'.join(map(str, rgb(c)))}" for c in colors]
        classes = named_classes(names, [rgb(c) for c in colors])
    entries = list(zip(classes.names, classes.colors, strict=True))
    kept = [(name, color) for name, color in entries if name.lower() not in IGNORED_NAMES]
    if not kept:
        raise DataError("all classes have names of regions that do not count")
    number_of, ignored = {name: i for i, (name, _) in enumerate(kept)}, ignored_number(len(kept))
    numbers: dict[int, int] = {}
    for name, color in entries:
        (r, g, b), number = color, number_of.get(name, ignored)
        if numbers.setdefault(r << 16 | g << 8 | b, number) != number:
            raise DataError(f"class {name!r} has the colour {color} of another class; give each class one of its own")
    return ClassInfo(*map(tuple, zip(*kept, strict=True))), numbers


def from_colors(path: Path, numbers: dict[int, int]) -> np.ndarray:
    """The class numbers of a colour mask, `[H, W]`, uint8 or uint16.

    Raises:
        DataError: the mask contains a colour that is no class.
    """
    colors = color_array(path)
    values, inverse, counts = np.unique(colors, return_inverse=True, return_counts=True)
    table = np.empty(len(values), np.uint16 if max(numbers.values()) > 255 else np.uint8)
    for i, value in enumerate(values.tolist()):
        if value not in numbers:
            raise DataError(
                f"{path}: colour {rgb(value)} ({counts[i]} pixels) is no class; give it one in --classes, or mend it"
            )
        table[i] = numbers[value]
    return table[inverse].reshape(colors.shape)


def from_binary(path: Path, threshold: int | None) -> np.ndarray:
    """The class numbers of a binary mask, uint8 `[H, W]`: 0 where the mask is 0, and 1 where it has its other value.

    Args:
        path: the mask.
        threshold: for masks with more than two values, such as those with soft edges: values >= threshold are 1.

    Raises:
        DataError: more than two values and no threshold, or a threshold that no value of the mask's type reaches.
    """
    with open_label(path, lossy=("JPEG",)) as picture:  # a threshold removes the noise of a JPEG
        values = np.array(picture if picture.mode in ("P", "I", "I;16", "L") else picture.convert("L"))
    if threshold is not None:
        bits = 8 if values.dtype == np.uint8 else 16
        if threshold >= 1 << bits:
            raise DataError(
                f"{path}: has {bits} bits, no value reaches --threshold {threshold}; give 1 to {2**bits - 1}"
            )
        return (values >= threshold).astype(np.uint8)
    found = np.unique(values)
    if len(found) > 2 or (len(found) == 2 and found[0] != 0):
        held = ", ".join(map(str, found[:6].tolist())) + (" ..." if len(found) > 6 else "")
        raise DataError(
            f"{path}: holds {held}; a binary mask holds 0 and one other value. Give --threshold 128 for soft edges"
        )
    return (values > 0).astype(np.uint8)


def from_numbers(path: Path, count: int, ignored: set[int]) -> np.ndarray:
    """The class numbers of a mask that stores class numbers; ignored pixels get `ignored_number`.

    Raises:
        DataError: the mask is unreadable, or contains numbers that are neither a class nor ignored.
    """
    label = read_label(path)
    does_not_count = np.isin(label, list(ignored))
    wrong = np.unique(label[(label >= count) & ~does_not_count])
    if wrong.size:
        raise DataError(
            f"{path}: holds {', '.join(map(str, wrong[:5].tolist()))}; classes are 0 to {count - 1}, or {min(ignored)} for "
            "ignored"
        )
    result = ignored_number(count)
    return np.where(does_not_count, result, label).astype(np.uint8 if result < 256 else np.uint16)


def number_classes(samples: list[Sample]) -> ClassInfo:
    """`class_0`, `class_1`, ... up to the largest number in the masks, see `count_classes`.

    Warns of numbers that look like grey levels, and of masks without a 0.
    """
    seen: set[int] = set()

    def readable() -> Iterator[np.ndarray]:
        for sample in samples:
            with contextlib.suppress(DataError):  # the conversion reports it
                label = read_label(sample.label)
                seen.update(np.unique(label).tolist())
                yield label

    count = count_classes(readable())
    held = sorted(number for number in seen if number < count)
    folder = samples[0].label.parent
    if _FEW * len(held) < count:
        numbers = ", ".join(map(str, held[:5])) + (", ..." if len(held) > 5 else "")
        logger.warning(
            f"{folder}: only {len(held)} of {count} class numbers occur ({numbers}). If they are grey levels and no class "
            "numbers, use --format color-masks, or binary-masks for two classes"
        )
    elif held and held[0] > 0:
        empty = "class_0 has" if held[0] == 1 else f"class_0 to class_{held[0] - 1} have"
        logger.warning(f"{folder}: the smallest class number is {held[0]}; {empty} no pixel. Class numbers start at 0")
    return named_classes([f"class_{i}" for i in range(count)])


def has_sixteen_bits(samples: list[Sample]) -> bool:
    """Whether a mask has 16 bits, so that numbers above 255 can occur."""
    for sample in samples:
        with contextlib.suppress(DataError), open_label(sample.label) as picture:
            if picture.mode.startswith("I"):
                return True
    return False


def voc(root: Path) -> tuple[list[Sample], ClassInfo, dict[int, int] | None]:
    """Reads PASCAL VOC's folders, also those of CVAT's `Segmentation mask` export.

    Returns:
        Samples, classes, and colour -> class number if `labelmap.txt` gives colours (masks are then colour or palette
        pictures), else None.
    """
    roots = [root, *sorted(path for path in root.glob("VOC20*") if path.is_dir())]
    root = next((path for path in roots if (path / "SegmentationClass").is_dir()), root)
    labels = root / "SegmentationClass"
    if not labels.is_dir():
        raise DataError(
            f"{root}: no folder SegmentationClass; give the folder of VOC2012, or of an export with labelmap.txt"
        )
    masks = list(walk_files(labels, (".png",)))
    wanted = {path.stem for path in masks}
    pictures = ((path.stem, path, path) for path in walk_files(root / "JPEGImages") if path.stem in wanted)
    images = unique(pictures, root / "JPEGImages", "the name")
    samples, missing = [], []
    for path in masks:
        if path.stem in images:
            samples.append(Sample(path.stem, images[path.stem], path, label=path))
        else:
            missing.append(path)
    if missing or not samples:
        raise DataError(f"{root / 'JPEGImages'}: no picture for {missing[0] if missing else 'any mask'}")
    labelmap = root / "labelmap.txt"
    if not labelmap.is_file():
        return samples, ClassInfo(PASCAL_VOC, bit_palette(21)), None
    names, colors = [], []
    for number, line in lines(labelmap):
        if line.startswith("#"):
            continue
        parts = line.split(":")
        try:
            colors.append([int(v) for v in parts[1].split(",")])
            names.append(parts[0].strip())
        except (ValueError, IndexError) as error:
            raise DataError(f"{labelmap}, line {number}: expected name:red,green,blue:parts:actions") from error
    return samples, *color_classes(samples, source_classes(names, colors, labelmap))
