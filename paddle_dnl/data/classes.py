# SPDX-License-Identifier: Apache-2.0
"""Class names, class colours and the ignored label, of known datasets, of a configuration or of a `classes.txt`."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from paddle_dnl.errors import DataError
from paddle_dnl.files.reading import read_bytes

import numpy as np

FILE_NAME = "classes.txt"
# Colour of ignored pixels in label pictures: that of 255 in PASCAL VOC's palette.
IGNORED_COLOR = (224, 224, 192)
BACKGROUND_COLOR = (0, 0, 0)

Colors = Sequence[tuple[int, int, int]]

CITYSCAPES = {
    "road": (128, 64, 128), "sidewalk": (244, 35, 232), "building": (70, 70, 70), "wall": (102, 102, 156),
    "fence": (190, 153, 153), "pole": (153, 153, 153), "traffic light": (250, 170, 30), "traffic sign": (220, 220, 0),
    "vegetation": (107, 142, 35), "terrain": (152, 251, 152), "sky": (70, 130, 180), "person": (220, 20, 60),
    "rider": (255, 0, 0), "car": (0, 0, 142), "truck": (0, 0, 70), "bus": (0, 60, 100), "train": (0, 80, 100),
    "motorcycle": (0, 0, 230), "bicycle": (119, 11, 32),
}  # fmt: skip

PASCAL_VOC = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip

PASCAL_CONTEXT_59 = (
    "aeroplane", "bag", "bed", "bedclothes", "bench", "bicycle", "bird", "boat", "book", "bottle", "building", "bus",
    "cabinet", "car", "cat", "ceiling", "chair", "cloth", "computer", "cow", "cup", "curtain", "dog", "door", "fence",
    "floor", "flower", "food", "grass", "ground", "horse", "keyboard", "light", "motorbike", "mountain", "mouse",
    "person", "plate", "platform", "pottedplant", "road", "rock", "sheep", "shelves", "sidewalk", "sign", "sky", "snow",
    "sofa", "table", "track", "train", "tree", "truck", "tvmonitor", "wall", "water", "window", "wood",
)  # fmt: skip

ADE20K = (
    "wall", "building", "sky", "floor", "tree", "ceiling", "road", "bed", "windowpane", "grass", "cabinet", "sidewalk",
    "person", "earth", "door", "table", "mountain", "plant", "curtain", "chair", "car", "water", "painting", "sofa",
    "shelf", "house", "sea", "mirror", "rug", "field", "armchair", "seat", "fence", "desk", "rock", "wardrobe", "lamp",
    "bathtub", "railing", "cushion", "base", "box", "column", "signboard", "chest of drawers", "counter", "sand", "sink",
    "skyscraper", "fireplace", "refrigerator", "grandstand", "path", "stairs", "runway", "case", "pool table", "pillow",
    "screen door", "stairway", "river", "bridge", "bookcase", "blind", "coffee table", "toilet", "flower", "book",
    "hill", "bench", "countertop", "stove", "palm", "kitchen island", "computer", "swivel chair", "boat", "bar",
    "arcade machine", "hovel", "bus", "towel", "light", "truck", "tower", "chandelier", "awning", "streetlight", "booth",
    "television receiver", "airplane", "dirt track", "apparel", "pole", "land", "bannister", "escalator", "ottoman",
    "bottle", "buffet", "poster", "stage", "van", "ship", "fountain", "conveyer belt", "canopy", "washer", "plaything",
    "swimming pool", "stool", "barrel", "basket", "waterfall", "tent", "bag", "minibike", "cradle", "oven", "ball",
    "food", "step", "tank", "trade name", "microwave", "pot", "animal", "bicycle", "lake", "dishwasher", "screen",
    "blanket", "sculpture", "hood", "sconce", "vase", "traffic light", "tray", "ashcan", "fan", "pier", "crt screen",
    "plate", "monitor", "bulletin board", "shower", "radiator", "glass", "clock", "flag",
)  # fmt: skip


@dataclass(frozen=True)
class ClassInfo:
    """Names and colours of the classes.

    Attributes:
        names: of class 0, 1, ...
        colors: (red, green, blue) of class 0, 1, ...
        ignore_index: number of ignored pixels in the label files; None if it is not specified.
    """

    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    ignore_index: int | None = None

    @property
    def ignored(self) -> int:
        """`ignore_index`, by default `ignored_number`."""
        return ignored_number(len(self.names)) if self.ignore_index is None else self.ignore_index


LARGEST_NUMBER = 65535  # the largest number of 16 bits; never a class


def ignored_number(num_classes: int) -> int:
    """Number of ignored pixels in label files that this package writes: 255, or 65535 if 255 is a class."""
    return 255 if num_classes <= 255 else LARGEST_NUMBER


def count_classes(labels: Iterable[np.ndarray]) -> int:
    """Number of classes in label pictures: 1 + the largest number, not counting the ignored number.

    65535 is always ignored; 255 is ignored unless larger class numbers occur.
    """
    seen: set[int] = set()
    for label in labels:
        seen.update(np.unique(label).tolist())
    seen.discard(LARGEST_NUMBER)
    if max(seen, default=0) == 255:
        seen.remove(255)
    return 1 + max(seen, default=0)


def bit_palette(count: int) -> tuple[tuple[int, int, int], ...]:
    """PASCAL VOC's palette: the bits of the class number are distributed over the high bits of red, green and blue."""
    colors = []
    for number in range(count):
        red = green = blue = 0
        for shift in range(8):
            digit = number >> (3 * shift)
            red |= (digit & 1) << (7 - shift)
            green |= (digit >> 1 & 1) << (7 - shift)
            blue |= (digit >> 2 & 1) << (7 - shift)
        colors.append((red, green, blue))
    return tuple(colors)


def colors_or_palette(classes: ClassInfo | None) -> tuple[tuple[int, int, int], ...]:
    """The colours of the classes; without classes PaddleSeg's palette, which starts at VOC's second colour, not at black."""
    return classes.colors if classes else bit_palette(257)[1:]


def label_palette(colors: Colors, rows: int = 256) -> np.ndarray:
    """RGB of the numbers 0 to `rows` - 1. Numbers without a class, such as 255 for ignored pixels, get a colour of their own."""
    table = np.full((rows, 3), IGNORED_COLOR, np.uint8)
    known = np.asarray(colors[:rows], np.uint8).reshape(-1, 3)
    table[: len(known)] = known
    return table


_NAMES = {
    ("PascalVOC", 21): PASCAL_VOC,
    ("PascalContext", 59): PASCAL_CONTEXT_59,
    ("PascalContext", 60): ("background", *PASCAL_CONTEXT_59),
    ("PascalContext59", 59): PASCAL_CONTEXT_59,
    ("ADE20K", 150): ADE20K,
}


def class_info(dataset_type: str, num_classes: int) -> ClassInfo:
    """Names and colours of a dataset type; `class_0`, `class_1`, ... for unknown ones.

    If there are two unknown classes, class 0 is taken for background: it is black, and overlays do not colour it.

    Args:
        dataset_type: the `type` of the dataset, such as `Cityscapes`.
        num_classes: number of classes of the model.
    """
    if dataset_type == "Cityscapes" and num_classes == len(CITYSCAPES):
        return ClassInfo(tuple(CITYSCAPES), tuple(CITYSCAPES.values()))
    names = _NAMES.get((dataset_type, num_classes))
    if names is not None:
        return ClassInfo(names, bit_palette(num_classes))
    return ClassInfo(tuple(f"class_{i}" for i in range(num_classes)), _default_colors(num_classes))


def _default_colors(count: int, names: Sequence[str] = ()) -> tuple[tuple[int, int, int], ...]:
    """PASCAL VOC's palette, starting with black only if class 0 is background, and without the colour of ignored pixels."""
    has_background = names[0].lower() in ("background", "_background_") if names else count == 2
    colors = [color for color in bit_palette(256) if color != IGNORED_COLOR]
    colors = colors if has_background else colors[1:]
    # VOC's palette has 256 colours, which are then repeated.
    return tuple(colors[i % len(colors)] for i in range(count))


def named_classes(names: Sequence[str], colors: Sequence[Sequence[int]] | None = None) -> ClassInfo:
    """Names, without blanks around them, and colours given by a user; by default PASCAL VOC's colours.

    Raises:
        DataError: a name that is empty, contains a line break or tab or occurs twice, or colours that are not one
            [red, green, blue] per name.
    """
    if isinstance(names, str) or not all(isinstance(name, str) and name.strip() for name in names):
        raise DataError(f"class_names: expected a list of names, got {names!r}")
    broken = next((name for name in names if len(name.splitlines()) > 1 or "\t" in name), None)
    if broken is not None:
        raise DataError(f"class_names: {broken!r} holds a line break or tab")
    names = [name.strip() for name in names]  # a classes.txt could not tell `car` from `car `
    twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if twice is not None:
        raise DataError(f"class_names: {twice!r} is given twice")
    if colors is None:
        return ClassInfo(tuple(names), _default_colors(len(names), names))
    if len(colors) != len(names):
        raise DataError(f"class_colors: {len(colors)} colours for {len(names)} class_names")
    for name, color in zip(names, colors, strict=True):
        fits = isinstance(color, list | tuple) and len(color) == 3
        if not fits or not all(type(value) is int and 0 <= value <= 255 for value in color):
            raise DataError(f"class_colors: {name}: expected [red, green, blue] from 0 to 255, got {color!r}")
    return ClassInfo(tuple(names), tuple(tuple(color) for color in colors))


# No list of classes is longer.
_MOST_BYTES = 16 << 20
_IGNORED_LINE = re.compile(r"#\s*ignore_index:\s*(\d+)\s*")
_NAME_AND_COLOR = re.compile(r"(.*?)[\s,]+(\d{1,3})[\s,]+(\d{1,3})[\s,]+(\d{1,3})")


def read_classes(path: str | Path) -> ClassInfo:
    """Reads a `classes.txt`: one class per line in the order of the class numbers, `name` or `name red green blue`.

    Blank lines and comments (`#`) are skipped, except `# ignore_index: N`, the number of ignored pixels.

    Raises:
        DataError: the file is unreadable, contains no class, or has colours for some classes only.
    """
    try:
        text = read_bytes(path, _MOST_BYTES).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a list of classes ({error})") from error
    names, colors, ignored = [], [], None
    for line in text.splitlines():
        if found := _IGNORED_LINE.fullmatch(line):
            ignored = int(found[1])
        if not line.strip() or line.startswith("#"):
            continue
        match = _NAME_AND_COLOR.fullmatch(line.strip())
        names.append(match[1].strip() if match else line.strip())
        colors.append([int(value) for value in match.groups()[1:]] if match else None)
    if not names:
        raise DataError(f"{path}: lists no classes")
    bare = [name for name, color in zip(names, colors, strict=True) if color is None]
    if bare and len(bare) < len(names):
        raise DataError(f"{path}: {bare[0]!r} has no colour, others have; give one to all or to none")
    try:
        return replace(named_classes(names, None if bare else colors), ignore_index=ignored)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def classes_text(classes: ClassInfo) -> str:
    """The content of a `classes.txt`, as `read_classes` reads it."""
    head = ["# name red green blue; the first line is class 0"]
    if classes.ignore_index is not None:
        head.append(f"# ignore_index: {classes.ignore_index}")
    rows = [f"{name}\t{r} {g} {b}" for name, (r, g, b) in zip(classes.names, classes.colors, strict=True)]
    return "".join(f"{line}\n" for line in (*head, *rows))


def classes_of(dataset) -> ClassInfo:
    """Names and colours of a dataset's classes: its own, or those of its type."""
    classes = getattr(dataset, "classes", None)
    return classes or class_info(type(dataset).__name__, dataset.num_classes)


def classes_of_config(config) -> ClassInfo:
    """Names and colours of a configuration's classes. The data need not exist.

    Args:
        config: a `paddle_dnl.config.Config`; its `val_dataset` is used, or `train_dataset` without one.
    """
    cfg = config.val_dataset_cfg or config.train_dataset_cfg
    if cfg.get("class_names"):
        return named_classes(cfg["class_names"], cfg.get("class_colors"))
    return class_info(cfg.get("type", ""), config.model_cfg.get("num_classes") or cfg["num_classes"])
