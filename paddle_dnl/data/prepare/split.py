# SPDX-License-Identifier: Apache-2.0
"""Splits a folder into train, val and test lists, with a share of each class in each list; groups are kept together."""

import re
from collections.abc import Sequence
from pathlib import Path

from paddle_dnl.data.images import list_files
from paddle_dnl.data.images.image_files import walk_files
from paddle_dnl.data.images.reading import read_label
from paddle_dnl.data.prepare.formats import masks
from paddle_dnl.data.prepare.import_note import require_complete
from paddle_dnl.errors import OutputError, UsageError
from paddle_dnl.files.atomic import write_text
from paddle_dnl.files.outputs import check_outputs, is_ours
from paddle_dnl.log import logger, progress

import numpy as np

SPLITS = ("train", "val", "test")


def group_names(names: Sequence[str], pattern: str | None) -> list[str]:
    """The group of each name: the match of a regular expression, or of its first group if it has groups.

    Without a pattern each name is a group of its own.

    Raises:
        UsageError: the regular expression is invalid, or does not match a name.
    """
    if pattern is None:
        return list(names)
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"--group-by {pattern!r}: is no regular expression ({error})") from error
    groups = []
    for name in names:
        match = compiled.search(name)
        if match is None:
            raise UsageError(f"--group-by {pattern!r}: finds nothing in {name!r}")
        groups.append(match[1] if compiled.groups else match[0])
    return groups


def assign(presence: np.ndarray, groups: Sequence[str], shares: dict[str, float], seed: int) -> list[str]:
    """The split of each sample, by iterative stratification: samples of rare classes are assigned first, to the split that
    lacks most of them.

    Source: Sechidis et al., On the Stratification of Multi-Label Data (2011), with groups in place of samples.

    Args:
        presence: bool `[N, K]`, which classes occur in each sample.
        groups: group of each sample; all samples of a group get the same split.
        shares: split -> share of the samples; the shares sum to 1.
        seed: for breaking ties at random.

    Raises:
        UsageError: fewer groups than splits.
    """
    names, members = np.unique(np.asarray(groups), return_inverse=True)
    wanted_splits = [split for split, share in shares.items() if share > 0]
    if len(names) < len(wanted_splits):
        raise UsageError(f"{len(names)} groups cannot be dealt out to {len(wanted_splits)} splits")
    sizes = np.bincount(members).astype(np.float64)
    holds = np.zeros((len(names), presence.shape[1]))
    np.add.at(holds, members, presence)
    part = np.array([shares[split] for split in wanted_splits])
    missing = part[:, None] * holds.sum(0)  # [splits, K] samples of each class that a split still lacks
    room = part * len(presence)
    rng = np.random.default_rng(seed)
    shuffled, open_groups, chosen = rng.permutation(len(names)), np.ones(len(names), bool), {}
    while open_groups.any():
        left = (holds * open_groups[:, None]).sum(0)
        rare = int(np.argmin(np.where(left > 0, left, np.inf))) if (left > 0).any() else None
        now = [g for g in shuffled.tolist() if open_groups[g] and (rare is None or holds[g, rare] > 0)]
        # Large groups first, since they fit into fewer splits.
        for group in sorted(now, key=lambda g: -sizes[g]):
            lack = missing[:, rare] if rare is not None else room
            best = max(range(len(part)), key=lambda s, lack=lack: (round(lack[s], 9), round(room[s], 9), rng.random()))
            chosen[group] = wanted_splits[best]
            missing[best] -= holds[group]
            room[best] -= sizes[group]
            open_groups[group] = False
    # A split without a sample gets the smallest group of the largest one.
    for split in wanted_splits:
        if split not in chosen.values():
            held = {s: [g for g, where in chosen.items() if where == s] for s in wanted_splits}
            largest = max(held.values(), key=len)
            chosen[min(largest, key=lambda g: sizes[g])] = split
    return [chosen[group] for group in members.tolist()]


def _require_no_stale(root: Path, found: dict[str, list[str]]) -> None:
    """Refuses a list of an earlier split that the new one does not replace; warns of a list by hand with the same pictures.

    Args:
        root: the folder.
        found: split -> lines of the new lists.

    Raises:
        OutputError: names the list.
    """
    now = {line.partition("\t")[0]: split for split, lines in found.items() for line in lines}
    for split in SPLITS:
        path = root / f"{split}.txt"
        if split in found or not path.is_file():
            continue
        names = (list_files.names_of(line, root, "\t", labelled=False)[0] for _, line in list_files.lines(path))
        shared = [name for name in names if name in now]
        if not shared:
            continue
        text = f"{path}: lists {len(shared)} pictures, such as {shared[0]}, that are now in {now[shared[0]]}.txt"
        if is_ours(path):
            raise OutputError(f"{text}; give --{split} again, or delete this list of an earlier split")
        logger.warning(f"{text}; it was written by hand and stays as it is")


def split_folder(
    root: str | Path,
    *,
    val: float,
    test: float = 0.0,
    seed: int = 0,
    group_by: str | None = None,
    images: str | None = None,
    labels: str | None = None,
) -> None:
    """Writes `train.txt`, `val.txt` and, if `test` > 0, `test.txt` into a folder.

    Args:
        root: a folder with a folder of pictures and one of labels; files are paired by name, endings are case-insensitive.
        val, test: shares of the samples.
        seed: the same seed gives the same lists.
        group_by: regular expression on the names of samples; samples with the same match, such as those of one video or
            patient, are kept in one split.
        images, labels: folders below `root`; by default those that `data import` writes, or other usual names.

    Raises:
        OutputError: a list exists that this package did not write, or one of an earlier split that this one does not replace;
            nothing was written.
        UsageError: no share is left for training, or there are fewer groups than splits.
        DataError: labels are missing or cannot be read, or an import into the folder is incomplete.
    """
    root = Path(root)
    if not root.is_dir():
        raise UsageError(f"{root}: no such folder")
    if not 0 <= val < 1 or not 0 <= test < 1 or val + test >= 1 or val + test == 0:
        raise UsageError(f"--val {val} --test {test}: must be shares from 0 that leave something to train on")
    require_complete(root)
    outside = [path for path in walk_files(root) if root.resolve() not in path.resolve().parents]
    if outside:
        logger.info(
            f"{root}: {len(outside)} files are links to elsewhere, such as {outside[0]}; they are listed as they are here"
        )
    samples = masks.pairs(root, images and root / images, labels and root / labels)
    shares = {"train": 1 - val - test, "val": val, "test": test}
    groups = group_names([sample.name for sample in samples], group_by)
    held = [np.unique(read_label(sample.label)) for sample in progress(samples, "read labels", len(samples))]
    classes = np.setdiff1d(np.concatenate(held), [255])
    presence = np.stack([np.isin(classes, values) for values in held])
    splits = assign(presence, groups, shares, seed)
    found = {}
    for split in SPLITS:
        found[split] = [
            "\t".join(path.relative_to(root).as_posix() for path in (sample.image, sample.label))
            for sample, where in zip(samples, splits, strict=True)
            if where == split
        ]
    found = {split: lines for split, lines in found.items() if lines}
    check_outputs((root / f"{split}.txt" for split in found), ())
    _require_no_stale(root, found)
    for split, lines in found.items():
        write_text(root / f"{split}.txt", "".join(f"{line}\n" for line in lines))
        logger.info(f"{root / f'{split}.txt'}: {len(lines)} pairs")
