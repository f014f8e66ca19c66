"""The check of a dataset before training: every file is there, readable, of its image's size, with labels in range."""

import hashlib
import json
import multiprocessing
import os
import tempfile
from functools import partial
from pathlib import Path

from paddle_dnl.data.base_dataset import SegmentationDataset, label_problem, size_text
from paddle_dnl.data.reading import read_image, read_label, require_whole
from paddle_dnl.errors import DataError
from paddle_dnl.log import logger, progress

_SHOWN = 5


def _problem(pair, num_classes: int, ignore_index: int, channels: int, map_label) -> str | None:
    """What is wrong with one image and its label, or None."""
    image_path, label_path = pair
    try:
        image = read_image(image_path, channels)
        require_whole(image_path)
        if label_path is None:
            return None
        stored = read_label(label_path)
        label = map_label(stored)
    except DataError as error:
        return str(error)
    if label.shape != image.shape[:2]:
        return f"{label_path}: is {size_text(label)}, its image {image_path} is {size_text(image)}"
    return label_problem(label_path, stored, label, num_classes, ignore_index)


def _raise(name: str, problems: list[str], total: int) -> None:
    more = f"\n... and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
    raise DataError(
        f"{name}: {len(problems)} of {total} samples cannot be used:\n" + "\n".join(problems[:_SHOWN]) + more
    )


def _fingerprint(dataset) -> tuple[str, dict[int, str]]:
    """What changes when any file, or the rule for labels, changes; and the samples whose files are not there."""
    rule = [dataset.num_classes, dataset.ignore_index, dataset.img_channels, type(dataset).__name__, dataset.mode]
    digest = hashlib.sha256(json.dumps(rule).encode())
    problems = {}
    for index, pair in enumerate(dataset.file_list):
        try:
            for path in filter(None, pair):
                found = os.stat(path)
                digest.update(f"{path}\0{found.st_size}\0{found.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
        except OSError as error:
            problems[index] = f"{path}: cannot be read ({error.strerror})"
    return digest.hexdigest(), problems


def _compare_entries(pairs: list, name: str) -> None:
    """An image with two labels is a mistake; one that is listed twice may be meant, as it then counts twice.

    Raises:
        DataError: an image is listed with different labels.
    """
    labels: dict = {}
    for image, label in pairs:
        if labels.setdefault(image, label) != label:
            raise DataError(f"{name}: {image} is listed with two labels, {labels[image]} and {label}; remove one")
    if len(labels) < len(pairs):
        seen = set()
        twice = [image for image, _ in pairs if image in seen or seen.add(image)]
        logger.warning(f"{name}: {len(twice)} entries are listed more than once, first {twice[0]}; they count as often")


def _skip(dataset, name: str, problems: dict[int, str]) -> None:
    """Takes samples out of the dataset, and says of each why."""
    total = len(dataset.file_list)
    if len(problems) == total:
        _raise(name, list(problems.values()), total)
    for text in problems.values():
        logger.warning(f"{name}: skipped: {text}")
    logger.warning(f"{name}: skipped {len(problems)} of {total} samples that cannot be used (--skip_bad_samples)")
    dataset.file_list = [pair for index, pair in enumerate(dataset.file_list) if index not in problems]


def _cache_folder(cache_dir) -> str:
    home = os.path.expanduser(os.environ.get("SEG_HOME", "~/.paddleseg"))
    if home.startswith("~"):  # a user without a home folder
        home = tempfile.gettempdir()
    return str(cache_dir or os.path.join(home, "tmp", "checked_datasets"))


def _remember(note: str) -> None:
    try:
        os.makedirs(os.path.dirname(note), exist_ok=True)
        Path(note).touch()
    except OSError as error:
        logger.warning(
            f"{os.path.dirname(note)}: cannot be written ({error.strerror}); the dataset will be checked again"
        )


def check_dataset(
    dataset,
    name: str = "dataset",
    cache_dir: str | Path | None = None,
    num_workers: int = 0,
    skip_bad: bool = False,
) -> int:
    """Reads every image and label once; remembers that it did, so that an unchanged dataset is not read again.

    Args:
        dataset: a `SegmentationDataset`; others pass, since how they store labels is not known.
        name: how the dataset is called in messages.
        cache_dir: where passed checks are noted; default below `$SEG_HOME` or `~/.paddleseg`. A folder that cannot be
            written only costs the next check its time.
        num_workers: processes that read.
        skip_bad: take samples that cannot be used out of the dataset, with a warning for each, instead of refusing it.

    Returns:
        How many samples were taken out.

    Raises:
        DataError: an empty dataset, an image with two labels, or the first problems with file names and values; with
            `skip_bad` only when no sample is left.
    """
    if not isinstance(dataset, SegmentationDataset):
        return 0
    pairs = dataset.file_list
    if not pairs:
        raise DataError(f"{name}: has no images")
    _compare_entries(pairs, name)
    fingerprint, problems = _fingerprint(dataset)
    if problems and not skip_bad:
        _raise(name, list(problems.values()), len(pairs))
    note = os.path.join(_cache_folder(cache_dir), fingerprint)
    if not problems and os.path.exists(note):
        return 0
    there = [index for index in range(len(pairs)) if index not in problems]
    logger.info(f"checking {len(there)} files of {name} (once; an unchanged dataset is not read again)")
    found = _read_all(dataset, [pairs[index] for index in there], name, num_workers)
    problems |= {index: text for index, text in zip(there, found, strict=True) if text}
    if not problems:
        _remember(note)
    elif skip_bad:
        _skip(dataset, name, dict(sorted(problems.items())))
    else:
        _raise(name, list(problems.values()), len(pairs))
    return len(problems)


def _read_all(dataset, pairs: list, name: str, num_workers: int) -> list[str | None]:
    """What is wrong with each pair, or None."""
    check = partial(
        _problem,
        num_classes=dataset.num_classes,
        ignore_index=dataset.ignore_index,
        channels=dataset.img_channels,
        map_label=dataset.map_label,
    )
    if num_workers > 1:
        with multiprocessing.get_context("fork").Pool(num_workers) as pool:
            return list(progress(pool.imap(check, pairs, chunksize=16), f"check {name}", len(pairs)))
    return [check(pair) for pair in progress(pairs, f"check {name}")]
