# SPDX-License-Identifier: Apache-2.0
"""Counts of each pair of files in columns, about 80 bytes per pair, stored on disk so that only new files are read."""

import io
from array import array
from collections.abc import Iterable
from pathlib import Path

from paddle_dnl.data.checking.counts import DatasetStatistics, SampleCounts

import numpy as np

_COLUMNS = {
    "keys": "Q",  # see `fingerprint.keys_of`
    "sizes": "I",  # width, height
    "digests": "Q",
    "ignored": "Q",
    "values": "d",  # smallest, largest
    "class_ends": "Q",  # end position of each sample's classes in the next two columns
    "classes": "H",
    "pixels": "I",
    "stored_ends": "Q",
    "stored": "i",
}
# Columns whose number of entries per row varies.
_ENDS = {"class_ends": ("classes", "pixels"), "stored_ends": ("stored",)}


class SampleTable:
    """Counts of samples, with the key of each sample's files."""

    def __init__(self):
        for name, code in _COLUMNS.items():
            setattr(self, name, array(code))
        self._order: np.ndarray | None = None  # sorts the keys; after the first search nothing is added

    def __len__(self) -> int:
        return len(self.keys)

    def add(self, key: int, sample: SampleCounts) -> None:
        """Appends one sample."""
        self.keys.append(key)
        self.sizes.extend(sample.size)
        self.digests.append(sample.digest)
        self.ignored.append(sample.ignored)
        self.values.extend(sample.values)
        present = np.flatnonzero(sample.pixels)
        self.classes.extend(present.tolist())
        self.pixels.extend(sample.pixels[present].tolist())
        self.class_ends.append(len(self.classes))
        self.stored.extend(sample.stored)
        self.stored_ends.append(len(self.stored))

    def extend(self, other: "SampleTable", row: int) -> None:
        """Appends one row of another table."""
        self.keys.append(other.keys[row])
        self.digests.append(other.digests[row])
        self.ignored.append(other.ignored[row])
        self.sizes.extend(other.sizes[2 * row : 2 * row + 2])
        self.values.extend(other.values[2 * row : 2 * row + 2])
        for ends, columns in _ENDS.items():
            there = getattr(other, ends)
            for name in columns:
                getattr(self, name).extend(getattr(other, name)[there[row - 1] if row else 0 : there[row]])
            getattr(self, ends).append(len(getattr(self, columns[0])))

    def append(self, other: "SampleTable") -> None:
        """Appends all rows of another table."""
        for ends, columns in _ENDS.items():
            shift = len(getattr(self, columns[0]))
            getattr(self, ends).extend([end + shift for end in getattr(other, ends)])
        for name in _COLUMNS:
            if name not in _ENDS:
                getattr(self, name).extend(getattr(other, name))

    def rows_of(self, keys: np.ndarray) -> np.ndarray:
        """The row of each key, int64 `[n]`; -1 for unknown keys."""
        if not len(self):
            return np.full(len(keys), -1)
        if self._order is None:
            self._order = np.argsort(self._column("keys"))
        known = self._column("keys")[self._order]
        places = np.minimum(np.searchsorted(known, keys), len(known) - 1)
        return np.where(known[places] == keys, self._order[places], -1)

    def _column(self, name: str) -> np.ndarray:
        return np.frombuffer(getattr(self, name), getattr(self, name).typecode)

    def statistics(self, num_classes: int, multilabel: bool) -> DatasetStatistics:
        """The sums over all rows, in their order."""
        if not len(self):
            return DatasetStatistics(0, [0] * num_classes, [0] * num_classes, multilabel=multilabel)
        classes, pixels = self._column("classes").astype(np.int64), np.zeros(num_classes, np.int64)
        np.add.at(pixels, classes, self._column("pixels").astype(np.int64))
        sizes = self._column("sizes").astype(np.uint64).reshape(-1, 2)
        packed, first, counts = np.unique(
            sizes[:, 0] << np.uint64(32) | sizes[:, 1], return_index=True, return_counts=True
        )
        common = np.lexsort((first, -counts))
        values = self._column("values").reshape(-1, 2)
        return DatasetStatistics(
            images=len(self),
            pixels=pixels.tolist(),
            images_with=np.bincount(classes, minlength=num_classes).tolist(),
            ignored=int(self._column("ignored").sum()),
            sizes={(int(packed[i]) >> 32, int(packed[i]) & 0xFFFFFFFF): int(counts[i]) for i in common},
            stored=np.unique(self._column("stored")).tolist(),
            digests=self._column("digests").copy(),
            values=(float(values[:, 0].min()), float(values[:, 1].max())),
            multilabel=multilabel,
        )

    def content(self) -> memoryview:
        """The content of a file, for `read`."""
        buffer = io.BytesIO()
        np.savez(buffer, **{name: self._column(name) for name in _COLUMNS})
        return buffer.getbuffer()

    @classmethod
    def joined(cls, paths: Iterable[Path]) -> "SampleTable":
        """The rows of several files."""
        table = cls()
        for path in paths:
            table.append(cls.read(path))
        return table

    @classmethod
    def read(cls, path: Path) -> "SampleTable":
        """Reads a file of `content`; an empty table if there is none, or if it is damaged or of another kind."""
        table = cls()
        try:
            with np.load(path, allow_pickle=False) as columns:
                for name, code in _COLUMNS.items():
                    if columns[name].dtype != np.dtype(code) or columns[name].ndim != 1:
                        return cls()
                    getattr(table, name).frombytes(columns[name].tobytes())
        except Exception:  # NumPy raises many kinds of exceptions for damaged files
            return cls()
        rows = len(table)
        fits = len(table.class_ends) == len(table.stored_ends) == len(table.digests) == len(table.ignored) == rows
        fits = fits and len(table.sizes) == len(table.values) == 2 * rows and len(table.classes) == len(table.pixels)
        if rows and fits:
            fits = table.class_ends[-1] == len(table.classes) and table.stored_ends[-1] == len(table.stored)
        return table if fits else cls()
