# SPDX-License-Identifier: Apache-2.0
"""Whether the files of a dataset are those of an earlier check, and of other processes: by name, size and time of change."""

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

PART = 4096  # pairs that are compared at once


def rule_of(dataset) -> bytes:
    """What decides what a check finds in the same files."""
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
    """What some parts of a list are on this machine; of several processes they can be joined.

    Attributes:
        files: of each part, a digest of the names, sizes and times of change of its files.
        names: of each part, a digest of the names without folders: the data may lie elsewhere on another machine.
        sizes: of each part, a digest of the sizes of its files.
        problems: place in the list -> what cannot be read.
    """

    files: dict[int, bytes] = field(default_factory=dict)
    names: dict[int, bytes] = field(default_factory=dict)
    sizes: dict[int, bytes] = field(default_factory=dict)
    problems: dict[int, str] = field(default_factory=dict)

    @classmethod
    def of(cls, pairs: Sequence, parts: Sequence[int]) -> "Fingerprints":
        """Looks at the files of the parts."""
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
        """All parts, of which several processes of a machine looked at some each."""
        everything = cls()
        for share in shares:
            for name in vars(everything):
                getattr(everything, name).update(getattr(share, name))
        return everything

    def digest(self, rule: bytes) -> str:
        """Changes when any file, or the rule for labels, changes."""
        digest = hashlib.sha256(rule)
        for part in sorted(self.files):
            digest.update(self.files[part])
        return digest.hexdigest()


def _state(path: str, status: os.stat_result) -> str:
    """What changes when a file does."""
    return f"{path}\0{status.st_size}\0{status.st_mtime_ns}"


def keys_of(pairs: Sequence, places: range) -> np.ndarray:
    """A hash of the names, sizes and times of change of the pairs in some places, uint64 `[n]`."""
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
    """Looks at all files, a share in each process of a machine, and compares the machines.

    Args:
        pairs: of file names.
        name: how the dataset is called in messages.
        ranks: that look together.

    Returns:
        That of this machine, with the problems of all.

    Raises:
        DataError: the machines have other files, so that a place does not mean the same sample in all of them.
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
        if not problems:  # else a size is missing
            differing += [part for part in parts if found.sizes[part] != other.sizes[part]]
        if differing:
            _refuse(pairs, name, ranks, differing[0], first, machine)
    mine = Fingerprints.joined([found for _, found in own])
    mine.problems = problems
    return mine


def _refuse(pairs: Sequence, name: str, ranks: Ranks, part: int, first: str, other: str) -> None:
    """Names the first file that differs between two machines.

    Raises:
        DataError: with it.
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
