# SPDX-License-Identifier: Apache-2.0
"""A list of pairs of file names with little memory per pair, for datasets of millions of pictures."""

import os
import sys
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

import numpy as np

_CODING = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()  # as `os.fsdecode`


class FileList(Sequence):
    """A sequence of pairs `[image, label]` of file names; the label may be None. Compares equal to a list of such pairs.

    All names are stored in one bytes object, with an array of their end positions: about 80 bytes per pair in place of 500.
    Forked processes share this memory, since no reference counts are written to it. The common folder of the first pair
    is stored once.

    Args:
        pairs: pairs of names or paths.
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
                    # A leading zero byte, which no name contains, marks a name that is not below the common folder.
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
        """The pairs `first` to `last - 1`, in half of the time of indexing each."""
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
    """The images, labels and list files of datasets, which no output of a program may overwrite."""
    for dataset in datasets:
        yield from filter(None, (getattr(dataset, "list_path", None), *chain.from_iterable(dataset.file_list)))


def even_indices(count: int, wanted: int) -> list[int]:
    """At most `wanted` evenly spaced indices below `count`."""
    return np.unique(np.linspace(0, count - 1, min(wanted, count)).round().astype(int)).tolist() if count else []
