# SPDX-License-Identifier: Apache-2.0
"""Annotations of pictures as polygons and masks, independent of the file format, and their rasterisation to label pictures."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from paddle_dnl.data.classes import BACKGROUND_COLOR, ClassInfo, ignored_number, named_classes
from paddle_dnl.errors import DataError
from paddle_dnl.files.reading import parse_json, read_bytes

import cv2
import numpy as np

BACKGROUND_NAMES = ("background", "_background_", "__background__")
# Labels that users of labelme and CVAT give to ignored regions.
IGNORED_NAMES = ("ignore", "ignored", "__ignore__", "_ignore_", "void", "unlabeled", "unlabelled", "dontcare")
_MAX_COORDINATE = 1 << 20


@dataclass(frozen=True)
class Shape:
    """One annotated region.

    Attributes:
        label: class name.
        where: name of the shape in errors, such as `shape 3`.
        rings: polygons, each float `[n, 2]` of (x, y). The shape is their union.
        mask: instead of polygons, a function of the picture's height and width that returns a mask. It is called when the
            label is painted, and refuses masks larger than the picture before decoding them.
        corner: (x, y) of the mask's first pixel.
    """

    label: str
    where: str
    rings: tuple[np.ndarray, ...] = ()
    mask: Callable[[int, int], np.ndarray] | None = None
    corner: tuple[int, int] = (0, 0)


@dataclass
class Sample:
    """One picture and its annotation.

    Attributes:
        name: name of the results without ending; may contain folders.
        image: file of the picture.
        source: file of the annotation.
        size: (width, height) according to the annotation, or None.
        shapes: in the order in which they are painted; later ones cover earlier ones.
        label: instead of shapes, a label picture whose numbers or colours are mapped to classes.
        problem: an error in the annotation that makes the sample unusable, or None.
    """

    name: str
    image: Path
    source: Path
    size: tuple[int, int] | None = None
    shapes: list[Shape] = field(default_factory=list)
    label: Path | None = None
    problem: str | None = None


def read_json(source: Path):
    """The content of a JSON file.

    Raises:
        DataError: the file is unreadable, no JSON, or nested too deeply.
    """
    try:
        return parse_json(read_bytes(source))
    except (OSError, ValueError) as error:
        raise DataError(f"{source}: cannot be read as JSON ({error})") from error


def unique(entries: Iterable[tuple[object, object, object]], source: Path, what: str) -> dict:
    """Makes a dict of entries, none of which may be lost because another one has its key; equal entries count once.

    Args:
        entries: key, value, and the name of the entry in errors.
        source: the annotation file or folder, for errors.
        what: meaning of the key, such as `image id`, for errors.

    Raises:
        DataError: two different entries have one key; names both.
    """
    found: dict = {}
    for key, value, name in entries:
        other, other_name = found.setdefault(key, (value, name))
        if other != value:
            raise DataError(f"{source}: {what} {key!r} belongs to both {other_name} and {name}; give each its own")
    return {key: value for key, (value, _) in found.items()}


def picture_path(name: str, folders: Sequence[Path], source: Path, what: str) -> Path:
    """The path of a picture named in an annotation: in the first folder that contains it, or in the first folder if none does.

    Args:
        name: name relative to the folders.
        folders: folders to search.
        source, what: the annotation file, and the meaning of `name` in it, for errors.

    Raises:
        DataError: the name leads out of the folder: it is absolute, contains `..` or is empty.
    """
    parts = Path(name).parts
    if not parts or ".." in parts or Path(name).is_absolute():
        raise DataError(f"{source}: {what} {name!r} leads out of the folder of pictures")
    places = [folder / name for folder in folders]
    return next(filter(Path.is_file, places), places[0])


def ring(points, source: Path, where: str) -> np.ndarray:
    """The points of a polygon as a float array `[n, 2]`.

    Raises:
        DataError: not a list of at least three (x, y), or a coordinate is no number or absurdly large.
    """
    try:
        array = np.asarray(points, np.float64).reshape(-1, 2)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{source}: {where}: its points are not (x, y) pairs") from error
    if len(array) < 3:
        raise DataError(f"{source}: {where}: a polygon needs three points, this one has {len(array)}")
    if not np.isfinite(array).all() or np.abs(array).max() > _MAX_COORDINATE:
        raise DataError(f"{source}: {where}: a coordinate is no number, or absurdly large")
    return array


def circle(centre, edge) -> np.ndarray:
    """A circle as a polygon of 64 points."""
    radius = math.dist(centre, edge)
    return ellipse(*centre, radius, radius)


def ellipse(x: float, y: float, x_radius: float, y_radius: float) -> np.ndarray:
    """An ellipse around (x, y) as a polygon of 64 points."""
    angles = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    return np.stack([x + x_radius * np.cos(angles), y + y_radius * np.sin(angles)], axis=1)


def rotated(points: np.ndarray, degrees: float) -> np.ndarray:
    """A polygon rotated around the mean of its points, clockwise in the picture."""
    sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    middle = points.mean(0)
    return (points - middle) @ np.array([[cosine, sine], [-sine, cosine]]) + middle


def rectangle(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    """A rectangle as a polygon."""
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float64)


def _shape_mask(shape: Shape, height: int, width: int, source: Path) -> np.ndarray:
    """The mask of a shape, `[height, width]` bool."""
    mask = np.zeros((height, width), np.uint8)
    if shape.mask is None:
        for points in shape.rings:
            # Pixel i covers i to i + 1, while OpenCV's integer coordinates are pixel centres. As in labelme, contours are inside.
            cv2.fillPoly(mask, [np.floor(points).astype(np.int32)], 1)
        return mask.astype(bool)
    part = np.asarray(shape.mask(height, width))
    x, y = shape.corner
    if x < 0 or y < 0 or x + part.shape[1] > width or y + part.shape[0] > height:
        raise DataError(
            f"{source}: {shape.where}: its mask of {part.shape[1]}x{part.shape[0]} at {x},{y} leaves the picture of "
            f"{width}x{height}"
        )
    mask[y : y + part.shape[0], x : x + part.shape[1]] = part != 0
    return mask.astype(bool)


def paint(sample: Sample, numbers: dict[str, int], height: int, width: int, unlabelled: int) -> np.ndarray:
    """The label picture `[height, width]` of a sample with shapes, uint8, or uint16 for more than 255 classes.

    Args:
        sample: the sample; its shapes are painted in order.
        numbers: class name -> class number.
        height, width: size of the picture.
        unlabelled: class number of pixels that no shape covers.

    Raises:
        DataError: a shape has an unknown class or lies outside of the picture.
    """
    kind = np.uint8 if max([*numbers.values(), unlabelled]) < 256 else np.uint16
    label = np.full((height, width), unlabelled, kind)
    for shape in sample.shapes:
        if shape.label not in numbers:
            known = ", ".join(list(numbers)[:20])
            raise DataError(f"{sample.source}: {shape.where}: unknown class {shape.label!r}; known are {known}")
        mask = _shape_mask(shape, height, width, sample.source)
        # A polygon thinner than a pixel may cover none and still lie inside.
        if not mask.any() and not any(
            (points.max(0) >= 0).all() and (points.min(0) < (width, height)).all() for points in shape.rings
        ):
            raise DataError(
                f"{sample.source}: {shape.where} ({shape.label}): lies outside of the picture of {width}x{height}"
            )
        label[mask] = numbers[shape.label]
    return label


def source_classes(names: Sequence[str], colors: Sequence[Sequence[int]] | None, source: Path) -> ClassInfo:
    """The classes that an annotation file lists.

    Raises:
        DataError: see `named_classes`; names the file.
    """
    try:
        return named_classes(names, colors)
    except DataError as error:
        raise DataError(f"{source}: {error}") from error


def with_background(found: ClassInfo) -> ClassInfo:
    """A format's list of classes, without names of ignored regions, and with `background` added in front if it is missing."""
    entries = [pair for pair in zip(found.names, found.colors, strict=True) if pair[0].lower() not in IGNORED_NAMES]
    if not any(name.lower() in BACKGROUND_NAMES for name, _ in entries):
        entries.insert(0, ("background", BACKGROUND_COLOR))
    return ClassInfo(tuple(name for name, _ in entries), tuple(color for _, color in entries))


def class_numbers(names: list[str], found: set[str]) -> tuple[list[str], dict[str, int], int]:
    """Assigns class numbers.

    Args:
        names: class names in the user's order; if empty, `background` and then the labels of the source, sorted.
        found: all labels of the source.

    Returns:
        The classes in order; label -> number, including ignored labels; and the number of unlabelled pixels, which is that of
        `background`, or `ignored_number` if the given names do not contain it.
    """
    if not names:
        rest = sorted(name for name in found if name.lower() not in (*BACKGROUND_NAMES, *IGNORED_NAMES))
        names = ["background", *rest]
    numbers = {name: i for i, name in enumerate(names)}
    background = next((i for i, name in enumerate(names) if name.lower() in BACKGROUND_NAMES), None)
    ignored = ignored_number(len(names))
    unlabelled = ignored if background is None else background
    for label in found - set(names):
        if label.lower() in IGNORED_NAMES:
            numbers[label] = ignored
        elif label.lower() in BACKGROUND_NAMES and background is not None:
            numbers[label] = background
    return names, numbers, unlabelled
