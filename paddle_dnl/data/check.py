"""The check of a dataset before training: every file is there, readable, of its image's size, with labels in range."""

import hashlib
import json
import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from paddle_dnl.data.base_dataset import SegmentationDataset, label_problem, size_text
from paddle_dnl.data.reading import read_image, read_label, require_whole
from paddle_dnl.errors import DataError
from paddle_dnl.log import logger, progress

_SHOWN = 5
_CHUNK = 16  # samples that a process gets at a time


def _problem(dataset, pair) -> str | None:
    """What is wrong with one image and its label, or None."""
    image_path, label_path = pair
    try:
        image = read_image(image_path, dataset.img_channels)
        require_whole(image_path)
        if label_path is None:
            return None
        stored = read_label(label_path)
        label = dataset.map_label(stored)
    except DataError as error:
        return str(error)
    if label.shape != image.shape[:2]:
        return f"{label_path}: is {size_text(label)}, its image {image_path} is {size_text(image)}"
    return label_problem(label_path, stored, label, dataset.num_classes, dataset.ignore_index)


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
        DataError: an image is listed with different labels, or as its own label.
    """
    own = next((image for image, label in pairs if label is not None and os.path.abspath(image) == os.path.abspath(label)), None)
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
    gather: Callable[[object], list] | None = None,
) -> int:
    """Reads every image and label once; remembers that it did, so that an unchanged dataset is not read again.

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
    _compare_entries(pairs, name)
    fingerprint, problems = _fingerprint(dataset)
    if problems and not skip_bad:
        _raise(name, list(problems.values()), len(pairs))
    note = os.path.join(_cache_folder(cache_dir), fingerprint)
    if problems or not os.path.exists(note):
        there = [index for index in range(len(pairs)) if index not in problems]
        logger.info(f"checking {len(there)} files of {name} (once; an unchanged dataset is not read again)")
        found = _read_all(dataset, [pairs[index] for index in there], name, num_workers)
        problems |= {index: text for index, text in zip(there, found, strict=True) if text}
    if gather is not None:
        problems = _agree(pairs, name, problems, gather)
    if not problems:
        _remember(note)
    elif skip_bad:
        _skip(dataset, name, dict(sorted(problems.items())))
    else:
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


_inherited = None  # in a process that reads: the dataset, got by the fork, as sending it with each task would take long


def _inherit(dataset) -> None:
    global _inherited
    _inherited = dataset


def _problem_inherited(pair) -> str | None:
    return _problem(_inherited, pair)


def _read_parallel(dataset, pairs: list, num_workers: int) -> Iterator[str | None]:
    pool = ProcessPoolExecutor(num_workers, multiprocessing.get_context("fork"), _inherit, (dataset,))
    done = 0
    try:
        for problem in pool.map(_problem_inherited, pairs, chunksize=_CHUNK):
            yield problem
            done += 1
    except BrokenProcessPool as error:
        # multiprocessing's own pool would start another process and wait for ever for what the first was to do.
        raise DataError(
            f"a process that checks the files was killed, as the system does when memory runs out ({done} of "
            f"{len(pairs)} samples were read, next {pairs[done][0]}); give fewer --num_workers"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _read_all(dataset, pairs: list, name: str, num_workers: int) -> list[str | None]:
    """What is wrong with each pair, or None."""
    if num_workers > 1 and "fork" in multiprocessing.get_all_start_methods():
        found = _read_parallel(dataset, pairs, num_workers)
    else:
        found = (_problem(dataset, pair) for pair in pairs)
    return list(progress(found, f"check {name}", len(pairs)))
