# SPDX-License-Identifier: Apache-2.0
"""The check of a dataset before training: all files exist and are readable, labels have the image's size and valid numbers."""

import contextlib
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

from paddle_dnl.data.checking import fingerprint
from paddle_dnl.data.checking.counts import DatasetStatistics, SampleCounts
from paddle_dnl.data.checking.fingerprint import Fingerprints
from paddle_dnl.data.checking.ranks import Ranks
from paddle_dnl.data.checking.sample_table import SampleTable
from paddle_dnl.data.file_list import FileList
from paddle_dnl.data.processes import map_in_processes
from paddle_dnl.errors import DataError
from paddle_dnl.files.atomic import write_bytes, write_text
from paddle_dnl.files.caches import paddleseg_home, writable_cache
from paddle_dnl.files.reading import parse_json, read_bytes
from paddle_dnl.log import logger, progress

import numpy as np

_SHOWN = 5
_CHUNK = 32  # samples sent to a worker at a time


def _look_at(dataset, place: int) -> str | SampleCounts | None:
    """What is wrong with an image or its label, as text, else their counts; None for an image without a label."""
    image_path, label_path = dataset.file_list[place]
    try:
        image = dataset.image_format.read(image_path)
        return None if label_path is None else dataset.count(image, image_path, label_path)
    except DataError as error:
        return str(error)


def _raise(name: str, problems: list[str], total: int) -> None:
    more = f"\n... and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
    raise DataError(
        f"{name}: {len(problems)} of {total} samples cannot be used:\n" + "\n".join(problems[:_SHOWN]) + more
    )


def _compare_entries(pairs: Sequence, name: str) -> None:
    """Refuses images with two labels; warns of pairs that are listed twice, which can be intended, as they count twice.

    Raises:
        DataError: an image is listed with different labels, or as its own label.
    """
    hashes = np.zeros(len(pairs), np.int64)
    for place, (image, label) in enumerate(pairs):
        hashes[place] = hash(image)
        if label is None:
            continue
        is_plain = not ("./" in image or "./" in label or "//" in image or "//" in label)
        if (
            image == label
            or not (is_plain and image[:1] == label[:1])
            and os.path.abspath(image) == os.path.abspath(label)
        ):
            raise DataError(f"{name}: {image} is listed as its own label; name the label pictures in the list")
    ordered = np.sort(hashes)
    repeated = ordered[1:][ordered[1:] == ordered[:-1]]
    labels: dict[str, str | None] = {}
    twice: list[str] = []
    for place in np.flatnonzero(np.isin(hashes, repeated)).tolist():
        image, label = pairs[place]
        if image in labels:
            twice.append(image)
        if labels.setdefault(image, label) != label:
            raise DataError(f"{name}: {image} is listed with two labels, {labels[image]} and {label}; remove one")
    if twice:
        logger.warning(f"{name}: {len(twice)} entries are listed more than once, first {twice[0]}; they count as often")


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
    ranks: Ranks | None = None,
) -> int:
    """Reads and counts every image and label; files that have not changed since the last check are not read again.

    Sets `dataset.statistics`.

    Args:
        dataset: one with an `image_format`, such as a `SegmentationDataset`; others are not checked, because it is unknown
            how they store pictures and labels.
        name: name of the dataset in messages.
        cache_dir: folder of the results of checks; default below `$SEG_HOME` or `~/.paddleseg`. If it is not writable, the
            next check reads all files again.
        num_workers: number of worker processes.
        skip_bad: remove unusable samples from the dataset, with a warning for each, instead of raising.
        ranks: the ranks of the training. Those of one machine share the work. A sample that one of them cannot read is
            removed or refused by all.

    Returns:
        Number of removed samples.

    Raises:
        DataError: the dataset is empty, an image has two labels, samples are unusable (the message names the first ones; with
            `skip_bad` only if none is left), a worker was killed, or the ranks see different files.
    """
    if not hasattr(dataset, "image_format"):
        return 0
    pairs, ranks = dataset.file_list, ranks or Ranks()
    if not pairs:
        raise DataError(f"{name}: has no images")
    _compare_entries(pairs, name)
    found = fingerprint.agree(pairs, name, ranks)
    problems = dict(sorted(found.problems.items()))
    if problems and not skip_bad:
        _raise(name, list(problems.values()), len(pairs))
    if not cache_dir:
        cache_dir = writable_cache(paddleseg_home() / "tmp" / "checked_datasets")
    rule = fingerprint.rule_of(dataset)
    note = os.path.join(cache_dir, f"{found.digest(rule)}.json")
    statistics = None
    if not problems:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # no note, or one that somebody spoiled
            statistics = DatasetStatistics.from_json(parse_json(read_bytes(note)))
    own, machines = ranks.by_machine(statistics is not None)
    if not all(is_known for known in machines.values() for is_known in known):
        share = _read_share(dataset, name, found, Path(cache_dir), ranks, num_workers) if not all(own) else ({}, {})
        shares, machines = ranks.by_machine(share)
        for _, unread in reversed([share for everyone in machines.values() for share in everyone]):
            problems |= unread
        problems = dict(sorted(problems.items()))
        if not all(own):
            parts = {part: counts for counts, _ in shares for part, counts in counts.items()}
            statistics = DatasetStatistics.joined([parts[part] for part in sorted(parts)])
            if not problems and ranks.place == 0:
                _remember(note, statistics)
    dataset.statistics = statistics
    if problems and (not skip_bad or len(problems) == len(pairs)):
        _raise(name, list(problems.values()), len(pairs))
    if problems:
        for text in problems.values():
            logger.warning(f"{name}: skipped: {text}")
        logger.warning(
            f"{name}: skipped {len(problems)} of {len(pairs)} samples that cannot be used (--skip_bad_samples)"
        )
        dataset.file_list = FileList(pair for index, pair in enumerate(pairs) if index not in problems)
    return len(problems)


def _read_share(
    dataset, name: str, found: Fingerprints, cache: Path, ranks: Ranks, num_workers: int
) -> tuple[dict[int, DatasetStatistics], dict[int, str]]:
    """Reads this rank's share of the files, except those that were read before.

    Returns:
        Counts of each part of the list, by the part's first index; and index -> what is wrong with the sample.
    """
    pairs = dataset.file_list
    size = min(fingerprint.PART, -(-len(pairs) // ranks.count))  # at least one part per rank
    parts = [range(first, min(first + size, len(pairs))) for first in range(0, len(pairs), size)]
    parts = parts[ranks.place :: ranks.count]
    keys = {part: fingerprint.keys_of(pairs, part) for part in parts}
    identity = hashlib.sha256(fingerprint.rule_of(dataset) + os.fsencode(os.path.dirname(pairs[0][0]))).hexdigest()[:32]
    before = SampleTable.joined(sorted(cache.glob(f"samples_{identity}_*.npz")))
    rows = {part: before.rows_of(keys[part]) for part in parts}
    places = [
        part[i] for part in parts for i in np.flatnonzero(rows[part] < 0).tolist() if part[i] not in found.problems
    ]
    if places:
        others = f"; the {ranks.count} processes of this machine read a share each" if ranks.count > 1 else ""
        logger.info(f"checking {len(places)} samples of {name} (once; an unchanged dataset is not read again{others})")
    looks = map_in_processes(
        _look_at,
        dataset,
        places,
        num_workers,
        what="that checks the files",
        chunk=_CHUNK,
        name=lambda place: pairs[place][0],
    )
    looks = progress(looks, f"check {name}", len(places))
    counts, unread, table = {}, {}, SampleTable()
    for part in parts:
        rows_here = SampleTable()
        for place, key, row in zip(part, keys[part].tolist(), rows[part].tolist(), strict=True):
            if place in found.problems:
                continue
            if row >= 0:
                rows_here.extend(before, row)
                continue
            sample = next(looks)
            if isinstance(sample, str):
                unread[place] = sample
            elif sample is not None:
                rows_here.add(key, sample)
        counts[part.start] = rows_here.statistics(dataset.num_classes, dataset.multilabel)
        table.append(rows_here)
    for _ in looks:  # ends the workers
        pass
    if places and len(table):
        _keep(cache / f"samples_{identity}_{ranks.place}of{ranks.count}.npz", table)
    return counts, unread


def _keep(path: Path, table: SampleTable) -> None:
    """Stores what was read. Does nothing if the folder is not writable, of which `_remember` warns."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, table.content(), own=True)
