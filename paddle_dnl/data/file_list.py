# SPDX-License-Identifier: Apache-2.0
"""A list of pairs of file names that a million of them do not make heavy."""

import os
import sys
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

import numpy as np

_CODING = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()  # as `os.fsdecode`


class FileList(Sequence):
    """Pairs `[image, label]` of file names, the label may be None; equal to a list of such pairs.

    All names are bytes in one buffer, with an array of where each ends: about 80 bytes for a pair in place of 500, and
    processes that are forked share the pages, since no reference counts are written to them. The folder that the first pair
    has in common is stored once.

    Args:
        pairs: of names or paths.
    """

    def __init__(self, pairs: Iterable):
        self._names, self._ends, self._folder = bytearray(), array("Q"), None
        for image, label in pairs:
            image, label = os.fsencode(image), None if label is None else os.fsencode(label)
            if self._folder is None:
                common = os.path.commonprefix([image, image if label is None else label])
                self._folder = common[: common.rfind(b"/") + 1]
            for name in (image, label):
                if name is not None:
                    # A zero byte, which no name holds, marks a name that is elsewhere.
                    inside = name.startswith(self._folder) and len(name) > len(self._folder)
                    self._names += name[len(self._folder) :] if inside else b"\0" + name
                self._ends.append(len(self._names))

    def __len__(self) -> int:
        return len(self._ends) // 2

    def __getitem__(self, index):
        if isinstance(index, slice):
            return FileList(self[i] for i in range(*index.indices(len(self))))
        place = range(len(self))[index]
        return next(self.between(place, place + 1))

    def __iter__(self) -> Iterator[list]:
        return self.between(0, len(self))

    def between(self, first: int, last: int) -> Iterator[list]:
        """The pairs from one place to before another; half the time of asking for each."""
        names, folder, coding = self._names, os.fsdecode(self._folder or b""), _CODING
        start = self._ends[2 * first - 1] if first else 0
        for place in range(2 * first, 2 * last, 2):
            pair = []
            for end in self._ends[place : place + 2]:
                if start == end:
                    pair.append(None)
                elif names[start]:
                    pair.append(folder + names[start:end].decode(*coding))
                else:
                    pair.append(names[start + 1 : end].decode(*coding))
                start = end
            yield pair

    def __eq__(self, other) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(mine == list(its) for mine, its in zip(self, other, strict=True))

    __hash__ = None

    def __repr__(self) -> str:
        return f"FileList({list(self[:3])!r}{', ...' if len(self) > 3 else ''})"


def files_of(datasets: Iterable) -> Iterator[str]:
    """The images and labels of datasets and the lists that name them: what no output of a program may replace."""
    for dataset in datasets:
        yield from filter(None, (getattr(dataset, "list_path", None), *chain.from_iterable(dataset.file_list)))


def spread(count: int, wanted: int) -> list[int]:
    """At most `wanted` places among `count`, at even distances."""
    return np.unique(np.linspace(0, count - 1, min(wanted, count)).round().astype(int)).tolist() if count else []
