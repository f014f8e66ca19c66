# SPDX-License-Identifier: Apache-2.0
"""Imports annotations of several formats as pictures, label pictures and `classes.txt`, ready for training.

DIR/images/NAME.jpg   copies of the pictures
DIR/labels/NAME.png   class numbers as palette PNG, or 16-bit PNG for more than 255 classes
DIR/classes.txt       names and colours in the order of the class numbers, and the number of ignored pixels: 255 or 65535
DIR/all.txt           list of all pairs, for `data split`
DIR/import.json       source and settings of the import; running it again does only what is missing
"""

import json
import re
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from paddle_dnl.data.classes import LARGEST_NUMBER, ClassInfo, classes_text, ignored_number, named_classes
from paddle_dnl.data.images.image_files import walk_files
from paddle_dnl.data.images.image_format import read_as_stored
from paddle_dnl.data.overlay import encode_label_png
from paddle_dnl.data.prepare import annotations
from paddle_dnl.data.prepare.annotations import Sample
from paddle_dnl.data.prepare.formats import coco, cvat, labelme, masks
from paddle_dnl.data.prepare.import_note import NOTE, UNFINISHED
from paddle_dnl.data.prepare.label_files import is_done
from paddle_dnl.data.processes import map_in_processes
from paddle_dnl.errors import DataError, UsageError
from paddle_dnl.files.atomic import write_bytes, write_text
from paddle_dnl.log import logger, progress

import numpy as np
from tqdm import tqdm

FORMATS = ("labelme", "coco", "voc", "cvat", "masks", "color-masks", "binary-masks")
LIST, CLASSES = "all.txt", "classes.txt"
_SHOWN = 5


@dataclass
class Plan:
    """The plan of an import.

    Attributes:
        samples: the samples to import.
        classes: names and colours of the result.
        table: lines to print: which label becomes which number.
        label_of: function (sample, height, width) -> label `[H, W]`.
    """

    samples: list[Sample]
    classes: ClassInfo
    table: list[str]
    label_of: Callable[..., np.ndarray]


@dataclass(frozen=True)
class ImportOptions:
    """The flags of `data import`.

    Attributes:
        format: one of `FORMATS`.
        classes: names in order, with colours if given; None: the classes of the source.
        images, labels: folders of pictures and labels, if they are not in the format's usual places.
        threshold: for binary masks: values from this one on are foreground.
        num_workers: number of worker processes.
        skip_bad: skip unusable samples.
    """

    format: str
    classes: ClassInfo | None = None
    images: Path | None = None
    labels: Path | None = None
    threshold: int | None = None
    num_workers: int = 1
    skip_bad: bool = False


@dataclass
class ImportResult:
    """Result of an import: number of pairs written, number of pairs that existed already, and messages on unusable samples."""

    written: int
    kept: int
    problems: list[str] = field(default_factory=list)


def _mapped(sample: Sample, height: int, width: int, read: Callable[[Path], np.ndarray]) -> np.ndarray:
    """The label of a sample that has a label picture; a function of the module, which processes can be given."""
    return read(sample.label)


def _shape_plan(
    source: Path, samples: list[Sample], given: ClassInfo | None, found: ClassInfo | None, listed: list[str]
) -> Plan:
    """Plan for samples with shapes: classes from the user, else from the format's own list, else from the labels."""
    labels = {shape.label for sample in samples for shape in sample.shapes}
    if given is None and found is not None:
        given = annotations.with_background(found)
    names = list(given.names) if given else []
    if not names and listed:
        left_out = (*annotations.BACKGROUND_NAMES, *annotations.IGNORED_NAMES)
        names = ["background", *(name for name in listed if name.lower() not in left_out)]
    names, numbers, unlabelled = annotations.class_numbers(names, labels)
    classes = (
        given if given is not None and list(given.names) == names else annotations.source_classes(names, None, source)
    )
    table = [f"{label!r} -> {number}" for label, number in sorted(numbers.items(), key=lambda item: item[1])]
    what = "ignored" if unlabelled == ignored_number(len(names)) else names[unlabelled]
    table.append(f"pixels without a label -> {unlabelled} ({what})")
    return Plan(samples, classes, table, partial(annotations.paint, numbers=numbers, unlabelled=unlabelled))


def make_plan(source: Path, options: ImportOptions) -> Plan:
    """Reads the annotations, but not the pictures.

    Raises:
        DataError: the source is not of this format, or has errors.
    """
    given = options.classes
    if options.format == "labelme":
        return _shape_plan(source, labelme.read(source, options.images), given, None, [])
    if options.format == "coco":
        samples, listed = coco.read(source, options.images)
        twice = [name for name, count in Counter(listed).items() if count > 1]
        if twice and given is None:
            raise DataError(
                f"{source}: two categories are called {twice[0]!r}; rename one, or make them one with --classes"
            )
        return _shape_plan(source, samples, given, None, listed)
    if options.format == "cvat":
        samples, found = cvat.read(source, options.images)
        return _shape_plan(source, samples, given, found, [])
    if options.format == "voc":
        samples, found, numbers = masks.voc(source)
        classes = given or found
        if numbers is not None:
            return _color_plan(samples, classes, numbers)
        return _number_plan(samples, classes)
    samples = masks.pairs(source, options.images, options.labels)
    if options.format == "color-masks":
        classes, numbers = masks.color_classes(samples, given)
        return _color_plan(samples, classes, numbers)
    if options.format == "binary-masks":
        classes = given or named_classes(["background", "foreground"])
        if len(classes.names) != 2:
            raise UsageError(f"--classes: binary masks have two classes, got {len(classes.names)}")
        other = f"from {options.threshold} on" if options.threshold is not None else "the other value"
        table = [f"0 -> 0 ({classes.names[0]})", f"{other} -> 1 ({classes.names[1]})"]
        read = partial(masks.from_binary, threshold=options.threshold)
        return Plan(samples, classes, table, partial(_mapped, read=read))
    return _number_plan(samples, given or masks.number_classes(samples))


def _color_plan(samples: list[Sample], classes: ClassInfo, numbers: dict[int, int]) -> Plan:
    names = (*classes.names, "ignored")
    table = [
        f"{masks.rgb(color)} -> {number} ({names[min(number, len(classes.names))]})"
        for color, number in numbers.items()
    ]
    return Plan(samples, classes, table, partial(_mapped, read=partial(masks.from_colors, numbers=numbers)))


def _number_plan(samples: list[Sample], classes: ClassInfo) -> Plan:
    ignored = {classes.ignored, LARGEST_NUMBER}  # never class numbers
    shown = ignored if len(classes.names) > 255 or masks.has_sixteen_bits(samples) else {classes.ignored}
    table = [f"{i} ({name})" for i, name in enumerate(classes.names)]
    table += [f"{number} -> {ignored_number(len(classes.names))} (ignored)" for number in sorted(shown)]
    read = partial(masks.from_numbers, count=len(classes.names), ignored=ignored)
    return Plan(samples, classes, table, partial(_mapped, read=read))


def _targets(root: Path, sample: Sample) -> tuple[Path, Path]:
    return root / "images" / f"{sample.name}{sample.image.suffix}", root / "labels" / f"{sample.name}.png"


def _convert(shared: tuple[Path, Plan, bool], index: int) -> tuple[bool | None, str | None]:
    """Writes the files of one sample of the plan.

    Returns:
        Whether the label picture has another number than 0, None if the files were not written; and an error message or None.
    """
    root, plan, fresh = shared
    sample = plan.samples[index]
    if sample.problem:
        return None, sample.problem
    image_to, label_to = _targets(root, sample)
    sources = (sample.image, sample.source)
    try:
        if not fresh and image_to.exists() and all(is_done(path, label_to) for path in sources if path.exists()):
            return None, None
        if not sample.image.is_file():
            raise DataError(f"{sample.source}: its picture {sample.image} is not there; --images names another folder")
        height, width = read_as_stored(sample.image).shape[:2]
        if sample.size is not None and sample.size != (width, height):
            raise DataError(
                f"{sample.source}: is for a picture of {sample.size[0]}x{sample.size[1]}, {sample.image} is {width}x{height}"
            )
        label = plan.label_of(sample, height=height, width=width)
        if label.shape != (height, width):
            raise DataError(
                f"{sample.label}: is {label.shape[1]}x{label.shape[0]}, its image {sample.image} is {width}x{height}"
            )
    except DataError as error:
        return None, str(error)
    if not is_done(sample.image, image_to) or image_to.stat().st_size != sample.image.stat().st_size:
        write_bytes(image_to, sample.image.read_bytes())
    # Written last and never older than its sources: if it exists, the pair is complete.
    write_bytes(label_to, encode_label_png(label, plan.classes.colors))
    return bool(label.any()), None


def _left_out(source: Path, options: ImportOptions, samples: list[Sample]) -> list[Path]:
    """Pictures in the folders of the samples without an annotation; for labelme also those in other subfolders."""
    used = {path.resolve() for sample in samples for path in (sample.image, sample.label) if path is not None}
    if options.format == "labelme":
        pictures = list(walk_files(options.images or source))
        # An unreadable annotation is a problem of its own.
        broken = {sample.source.stem for sample in samples if sample.problem}
        pictures = [path for path in pictures if path.stem not in broken]
    else:
        folders = sorted({sample.image.parent for sample in samples})
        pictures = [path for folder in folders for path in walk_files(folder, depth=0)]
    return [path for path in pictures if path.resolve() not in used]


def _warn_of_classes(classes: ClassInfo, all_background: bool) -> None:
    """Warns of names that differ only in upper and lower case, and of labels without any object.

    Args:
        classes: the classes of the result.
        all_background: whether all label pictures contain only 0.
    """
    seen: dict[str, str] = {}
    for name in classes.names:
        other = seen.setdefault(name.lower(), name)
        if other != name:
            logger.warning(f"classes {other!r} and {name!r} differ only in upper and lower case; are they one class?")
    if all_background:
        logger.warning(f"all pixels of all labels are class 0 ({classes.names[0]}); are the annotations complete?")


def _require_own_folder(root: Path, settings: dict) -> bool:
    """Whether all samples must be imported again. Refuses folders with other content.

    Raises:
        UsageError: the folder contains other files, or an import of another source.
    """
    note = root / NOTE
    if not root.exists() or not any(root.iterdir()):
        return True
    if not note.is_file():
        raise UsageError(f"--to {root}: holds files that no import wrote; give another folder")
    try:
        before = annotations.read_json(note)
    except DataError as error:
        raise UsageError(f"--to {root}: {note} is damaged; give another folder") from error
    if not isinstance(before, dict):
        raise UsageError(f"--to {root}: {note} was not written by an import; give another folder")
    if before.get("source") != settings["source"] or before.get("format") != settings["format"]:
        raise UsageError(f"--to {root}: holds an import of {before.get('source')}; give another folder")
    return before != settings


def import_data(source: str | Path, to: str | Path, options: ImportOptions) -> None:
    """Writes the files listed at the top. The source is not changed.

    Raises:
        DataError: samples are unusable (the first five are named) and `skip_bad` is not set, or none is left. The usable ones
            are written in any case, and a second run continues from there.
        UsageError: the source does not exist, or the target lies inside of it or contains other files.
    """
    source, root = Path(source), Path(to)
    if not source.exists():
        raise UsageError(f"{source}: no such file or folder")
    inside = root.resolve()
    if source.is_dir() and (inside == source.resolve() or source.resolve() in inside.parents):
        raise UsageError(f"--to {root}: lies inside of the source {source}; give another folder")
    plan = make_plan(source, options)
    _require_names(plan)
    settings = {
        "source": str(source.resolve()),
        "format": options.format,
        "table": plan.table,
        "colors": [list(color) for color in plan.classes.colors],
    }
    fresh = _require_own_folder(root, settings)
    if fresh:
        place = next(path for path in (root, *root.resolve().parents) if path.exists())
        needed = sum(sample.image.stat().st_size for sample in plan.samples if sample.image.is_file())
        free = shutil.disk_usage(place).free
        if needed > free:
            needed, free = (tqdm.format_sizeof(size, "B") if size else "0 bytes" for size in (needed, free))
            raise DataError(f"--to {root}: the images alone take {needed}, only {free} are free")
    root.mkdir(parents=True, exist_ok=True)
    logger.info(
        "\n".join(
            [f"{source}: {len(plan.samples)} samples; what becomes which class:", *(f"  {row}" for row in plan.table)]
        )
    )
    # Written first, so that the folder of an interrupted import is recognised.
    write_bytes(root / NOTE, json.dumps(settings if not fresh else settings | {UNFINISHED: True}, indent=2).encode())
    result, lines, all_background = ImportResult(0, 0), [], True
    done = map_in_processes(
        _convert,
        (root, plan, fresh),
        range(len(plan.samples)),
        options.num_workers,
        what="that imports",
        chunk=4,
        name=lambda index: str(plan.samples[index].source),
    )
    done = progress(done, "import", len(plan.samples))
    for sample, (found, problem) in zip(plan.samples, done, strict=True):
        if problem:
            result.problems.append(problem)
            continue
        result.written += found is not None
        result.kept += found is None
        all_background &= found is False
        lines.append("\t".join(path.relative_to(root).as_posix() for path in _targets(root, sample)))
    if result.problems and (not options.skip_bad or not lines):
        bad = len(result.problems)
        head = f"{bad} of {len(plan.samples)} samples cannot be imported (--skip_bad_samples goes on without them):"
        more = [f"... and {bad - _SHOWN} more"] if bad > _SHOWN else []
        raise DataError("\n".join([head, *result.problems[:_SHOWN], *more]))
    for problem in result.problems:
        logger.warning(f"skipped: {problem}")
    classes = replace(plan.classes, ignore_index=ignored_number(len(plan.classes.names)))
    write_bytes(root / CLASSES, classes_text(classes).encode())
    write_text(root / LIST, "".join(f"{line}\n" for line in lines))
    write_bytes(root / NOTE, json.dumps(settings, indent=2).encode())
    _warn_of_classes(classes, all_background)
    left = _left_out(source, options, plan.samples)
    without = f"{len(left)} pictures without annotation left out, first {left[0]}; " if left else ""
    logger.info(
        f"{root}: {result.written} pairs written, {result.kept} were there, {len(result.problems)} skipped; {without}"
        f"{len(plan.classes.names)} classes in {CLASSES}"
    )


def _require_names(plan: Plan) -> None:
    """Raises DataError if two samples would be written to the same file, or if a file of the result cannot contain a name."""
    comment = next((name for name in plan.classes.names if name.startswith("#")), None)
    if comment is not None:
        raise DataError(f"class {comment!r}: begins with #, as comments of {CLASSES} do; rename it")
    seen: dict[str, Sample] = {}
    for sample in plan.samples:
        if re.search(r"[\0-\x1f\x7f]", sample.name + sample.image.suffix):
            raise DataError(f"{sample.source}: the picture's name {sample.name!r} holds control characters; rename it")
        other = seen.setdefault(sample.name, sample)
        if other is not sample and other.image == sample.image:
            if other.source == sample.source:
                raise DataError(f"{sample.source}: lists {sample.image} twice; remove one entry")
            raise DataError(f"{other.source} and {sample.source} both belong to {sample.image}; remove one")
        if other is not sample:
            raise DataError(f"{other.image} and {sample.image} would both become {sample.name}; rename one")
