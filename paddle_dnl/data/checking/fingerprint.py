# SPDX-License-Identifier: Apache-2.0
"""Compares the files of a dataset with those of an earlier check and of other ranks, by name, size and modification time."""

import contextlib
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from paddle_dnl.data.checking.ranks import Ranks
from paddle_dnl.data.file_list import FileList
from paddle_dnl.errors import DataError

import numpy as np

PART = 4096  # pairs per digest


def rule_of(dataset) -> bytes:
    """The settings of a dataset that determine the result of a check, as bytes for a digest."""
    rule = [
        dataset.num_classes,
        dataset.ignore_index,
        dataset.img_channels,
        dataset.value_range,
        type(dataset).__name__,
        dataset.mode,
    ]
    return json.dumps(rule).encode()


@dataclass
class Fingerprints:
    """Digests of parts of a list of files on this machine; those of several ranks can be joined.

    Attributes:
        files: per part, a digest of the names, sizes and modification times of its files.
        names: per part, a digest of the names without folders, since the folder may differ between machines.
        sizes: per part, a digest of the sizes of its files.
        problems: index in the list -> which file cannot be read.
    """

    files: dict[int, bytes] = field(default_factory=dict)
    names: dict[int, bytes] = field(default_factory=dict)
    sizes: dict[int, bytes] = field(default_factory=dict)
    problems: dict[int, str] = field(default_factory=dict)

    @classmethod
    def of(cls, pairs: Sequence, parts: Sequence[int]) -> "Fingerprints":
        """Computes the digests of the given parts."""
        found = cls()
        for part in parts:
            found._look(pairs, part)
        return found

    def _look(self, pairs: Sequence, part: int) -> None:
        files, names, sizes = [], [], []
        places = range(part * PART, min((part + 1) * PART, len(pairs)))
        listed = (
            pairs.between(places.start, places.stop) if isinstance(pairs, FileList) else map(pairs.__getitem__, places)
        )
        for place, pair in zip(places, listed, strict=True):
            try:
                for path in pair:
                    if path is None:
                        names.append("")
                        continue
                    names.append(path[path.rfind("/") + 1 :])
                    status = os.stat(path)
                    files.append(_state(path, status))
                    sizes.append(str(status.st_size))
            except OSError as error:
                self.problems[place] = f"{path}: cannot be read ({error.strerror})"
        for found, lines in ((self.files, files), (self.names, names), (self.sizes, sizes)):
            text = "\n".join(lines).encode("utf-8", "surrogateescape")
            found[part] = hashlib.blake2b(text, digest_size=16).digest()

    @classmethod
    def joined(cls, shares: Sequence["Fingerprints"]) -> "Fingerprints":
        """The parts of all ranks of a machine together."""
        everything = cls()
        for share in shares:
            for name in vars(everything):
                getattr(everything, name).update(getattr(share, name))
        return everything

    def digest(self, rule: bytes) -> str:
        """One digest of all files and of `rule_of` the dataset."""
        digest = hashlib.sha256(rule)
        for part in sorted(self.files):
            digest.update(self.files[part])
        return digest.hexdigest()


def _state(path: str, status: os.stat_result) -> str:
    """Name, size and modification time of a file, as text."""
    return f"{path}\0{status.st_size}\0{status.st_mtime_ns}"


def keys_of(pairs: Sequence, places: range) -> np.ndarray:
    """A hash of the names, sizes and modification times of each of some pairs, uint64 `[n]`."""
    keys = []
    for place in places:
        text = ""
        for path in filter(None, pairs[place]):
            with contextlib.suppress(OSError):
                text += _state(path, os.stat(path)) + "\n"
        whole = text.encode("utf-8", "surrogateescape")
        keys.append(int.from_bytes(hashlib.blake2b(whole, digest_size=8).digest(), "little"))
    return np.array(keys, np.uint64)


def agree(pairs: Sequence, name: str, ranks: Ranks) -> Fingerprints:
    """Fingerprints of all files, computed by the ranks of each machine together, and compared between the machines.

    Args:
        pairs: pairs of file names.
        name: name of the dataset in messages.
        ranks: the ranks that share the work.

    Returns:
        The fingerprints of this machine, with the problems of all machines.

    Raises:
        DataError: the machines have different files, so that an index does not mean the same sample on all of them.
    """
    parts = range(-(-len(pairs) // PART))
    share = Fingerprints.of(pairs, parts[ranks.place :: ranks.count])
    own, machines = ranks.by_machine((len(pairs), share))
    counts = [count for shares in machines.values() for count, _ in shares]
    if len(set(counts)) > 1:
        raise DataError(
            f"{name}: the processes do not see the same files ({', '.join(map(str, counts))} samples); give all of them the "
            "same data"
        )
    everywhere = {machine: Fingerprints.joined([found for _, found in shares]) for machine, shares in machines.items()}
    problems: dict[int, str] = {}
    for found in reversed(everywhere.values()):
        problems |= found.problems
    first = next(iter(everywhere))
    for machine, found in everywhere.items():
        other = everywhere[first]
        differing = [part for part in parts if found.names[part] != other.names[part]]
        if not problems:  # with problems some sizes are missing
            differing += [part for part in parts if found.sizes[part] != other.sizes[part]]
        if differing:
            _refuse(pairs, name, ranks, differing[0], first, machine)
    mine = Fingerprints.joined([found for _, found in own])
    mine.problems = problems
    return mine


def _refuse(pairs: Sequence, name: str, ranks: Ranks, part: int, first: str, other: str) -> None:
    """Raises an error that names the first file that differs between two machines.

    Raises:
        DataError: always.
    """
    paths = [path for pair in pairs[part * PART : (part + 1) * PART] for path in pair if path is not None]
    sizes = [os.stat(path).st_size if os.path.exists(path) else -1 for path in paths]
    _, machines = ranks.by_machine(list(zip(paths, sizes, strict=True)))
    for (path, size), (its, its_size) in zip(machines[first][0], machines[other][0], strict=False):
        if os.path.basename(path) != os.path.basename(its):
            found = f"{path} on {first} is {its} on {other}"
        elif size != its_size:
            found = f"{path} has {size} bytes on {first} and {its_size} on {other}"
        else:
            continue
        raise DataError(f"{name}: the machines do not see the same files: {found}; give all of them the same data")
    raise DataError(f"{name}: {first} and {other} do not see the same files; give all of them the same data")
