# SPDX-License-Identifier: Apache-2.0
"""The check of a dataset before training: every file is there, readable, of its image's size, with labels in range."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

from paddle_dnl.data.base_dataset import SegmentationDataset
from paddle_dnl.data.images.reading import require_whole
from paddle_dnl.data.processes import map_in_processes
from paddle_dnl.data.statistics import DatasetStatistics, SampleCounts
from paddle_dnl.errors import DataError
from paddle_dnl.files.atomic import write_text
from paddle_dnl.files.caches import writable_cache
from paddle_dnl.log import logger, progress

_SHOWN = 5
_CHUNK = 16  # samples that a process gets at a time


def _look(dataset, pair) -> str | SampleCounts | None:
    """The fault of one image and its label as text, or their counts; None where there is no label."""
    image_path, label_path = pair
    try:
        image = dataset.image_format.read(image_path)
        require_whole(image_path)
        return None if label_path is None else dataset.count(image, image_path, label_path)
    except DataError as error:
        return str(error)


def _raise(name: str, problems: list[str], total: int) -> None:
    more = f"\n... and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
    raise DataError(
        f"{name}: {len(problems)} of {total} samples cannot be used:\n" + "\n".join(problems[:_SHOWN]) + more
    )


def _fingerprint(dataset) -> tuple[str, dict[int, str]]:
    """A digest of names, sizes and times of all files and of the label rule; and the samples whose files are missing."""
    rule = [
        dataset.num_classes,
        dataset.ignore_index,
        dataset.img_channels,
        dataset.value_range,
        type(dataset).__name__,
        dataset.mode,
    ]
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


def _skip(dataset, name: str, problems: dict[int, str]) -> None:
    """Removes samples from the dataset, with a warning that gives the reason of each."""
    total = len(dataset.file_list)
    if len(problems) == total:
        _raise(name, list(problems.values()), total)
    for text in problems.values():
        logger.warning(f"{name}: skipped: {text}")
    logger.warning(f"{name}: skipped {len(problems)} of {total} samples that cannot be used (--skip_bad_samples)")
    dataset.file_list = [pair for index, pair in enumerate(dataset.file_list) if index not in problems]


def _recall(note: str) -> DatasetStatistics | None:
    """The stored counts of an earlier check of the same files; None without one."""
    try:
        return DatasetStatistics.from_json(json.loads(Path(note).read_bytes()))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _remember(note: str, statistics: DatasetStatistics) -> None:
    try:
        os.makedirs(os.path.dirname(note), exist_ok=True)
        write_text(note, json.dumps(statistics.to_json()), own=True)
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
    gather: Callable[[object], list] | None = None,
) -> int:
    """Reads every image and label once and counts what they hold; an unchanged dataset is not read again.

    The counts become `dataset.statistics`.

    Args:
        dataset: a `SegmentationDataset`; others pass, since how they store labels is not known.
        name: how the dataset is called in messages.
        cache_dir: where passed checks are noted; default below `$SEG_HOME` or `~/.paddleseg`. A folder that cannot be
            written only costs the next check its time.
        num_workers: processes that read.
        skip_bad: take samples that cannot be used out of the dataset, with a warning for each, instead of refusing it.
        gather: with several processes that train together, the operation that gives each of them the values of all. A
            sample that one of them cannot read is then left out, or refused, by all; it is called once by each.

    Returns:
        How many samples were taken out.

    Raises:
        DataError: an empty dataset, an image with two labels, or the first problems with file names and values; with
            `skip_bad` only when no sample is left. A process that reads was killed. Processes that see other files.
    """
    if not isinstance(dataset, SegmentationDataset):
        return 0
    pairs = dataset.file_list
    if not pairs:
        raise DataError(f"{name}: has no images")
    # An image with two labels is a mistake; one that is listed twice may be meant: it then counts twice.
    own = next(
        (image for image, label in pairs if label is not None and os.path.abspath(image) == os.path.abspath(label)),
        None,
    )
    if own is not None:
        raise DataError(f"{name}: {own} is listed as its own label; name the label pictures in the list")
    labels: dict = {}
    for image, label in pairs:
        if labels.setdefault(image, label) != label:
            raise DataError(f"{name}: {image} is listed with two labels, {labels[image]} and {label}; remove one")
    if len(labels) < len(pairs):
        seen = set()
        twice = [image for image, _ in pairs if image in seen or seen.add(image)]
        logger.warning(f"{name}: {len(twice)} entries are listed more than once, first {twice[0]}; they count as often")
    fingerprint, problems = _fingerprint(dataset)
    if problems and not skip_bad:
        _raise(name, list(problems.values()), len(pairs))
    if not cache_dir:
        cache_dir = writable_cache(Path(os.environ.get("SEG_HOME", "~/.paddleseg")) / "tmp" / "checked_datasets")
    note = os.path.join(cache_dir, fingerprint)
    statistics = None if problems else _recall(note)
    if statistics is None:
        there = [index for index in range(len(pairs)) if index not in problems]
        logger.info(f"checking {len(there)} files of {name} (once; an unchanged dataset is not read again)")
        found = _read_all(dataset, [pairs[index] for index in there], name, num_workers)
        problems |= {index: text for index, text in zip(there, found, strict=True) if isinstance(text, str)}
        counts = [sample for sample in found if isinstance(sample, SampleCounts)]
        statistics = DatasetStatistics.merge(counts, dataset.num_classes, dataset.multilabel)
        if not problems:
            _remember(note, statistics)
    dataset.statistics = statistics
    if gather is not None:
        problems = _agree(pairs, name, problems, gather)
    if problems and skip_bad:
        _skip(dataset, name, dict(sorted(problems.items())))
    elif problems:
        _raise(name, list(problems.values()), len(pairs))
    return len(problems)


def _agree(pairs: list, name: str, problems: dict[int, str], gather: Callable[[object], list]) -> dict[int, str]:
    """The problems that any of several processes found, the same in each of them.

    Raises:
        DataError: the processes do not see the same files, so that a position does not mean the same sample.
    """
    # Names without folders: the data may lie elsewhere on another machine.
    names = [[path and os.path.basename(path) for path in pair] for pair in pairs]
    digest = hashlib.sha256(json.dumps(names).encode()).hexdigest()
    everywhere = gather((len(pairs), digest, problems))
    if len({(count, digest) for count, digest, _ in everywhere}) > 1:
        counts = ", ".join(str(count) for count, _, _ in everywhere)
        raise DataError(
            f"{name}: the processes do not see the same files ({counts} samples); give all of them the same data"
        )
    merged: dict[int, str] = {}
    for _, _, found in reversed(everywhere):
        merged |= found
    return dict(sorted(merged.items()))


def _read_all(dataset, pairs: list, name: str, num_workers: int) -> list[str | SampleCounts | None]:
    """`_look` at each pair."""
    what = "that checks the files"
    found = map_in_processes(_look, dataset, pairs, num_workers, what=what, chunk=_CHUNK)
    return list(progress(found, f"check {name}", len(pairs)))
