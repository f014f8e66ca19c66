# SPDX-License-Identifier: Apache-2.0
"""Divides the pictures of a list, a folder or Parquet files into chunks, the units of work of a process."""

import hashlib
import json
import pickle
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from paddle_dnl.data.images import list_files
from paddle_dnl.data.images.image_files import all_names_differ, is_hidden, iter_results
from paddle_dnl.errors import DataError, UsageError
from paddle_dnl.optional import not_installed

# Rows of a Parquet file per read.
_BATCH_ROWS = 16


@dataclass(frozen=True)
class FileChunk:
    """Picture files.

    Attributes:
        number: index of the chunk.
        rows: (absolute path, name of the result without suffix) of each picture.
    """

    number: int
    rows: tuple[tuple[str, str], ...]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def names(self) -> list[str]:
        """Names of the results, without suffix."""
        return [name for _, name in self.rows]

    def pictures(self, wanted: set[str]) -> Iterator[tuple[str, Path, Path]]:
        """Yields (title, file, name of the result) of the wanted pictures in order."""
        return ((path, Path(path), Path(name)) for path, name in self.rows if name in wanted)


@dataclass(frozen=True)
class BytesChunk:
    """A row group of a Parquet file with a column of encoded pictures.

    Attributes:
        number: index of the chunk.
        file: absolute path of the Parquet file.
        row_group: index of the row group.
        column: column of the encoded pictures.
        names: name of the result of each row, without suffix.
    """

    number: int
    file: str
    row_group: int
    column: str
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def pictures(self, wanted: set[str]) -> Iterator[tuple[str, bytes, Path]]:
        """Yields (title, content, name of the result) of the wanted pictures in order."""
        names = iter(self.names)
        rows = _open(Path(self.file)).iter_batches(_BATCH_ROWS, row_groups=[self.row_group], columns=[self.column])
        for batch in rows:
            for content in batch.column(0):
                if (name := next(names)) in wanted:
                    yield f"{self.file}: {name}", content.as_py() or b"", Path(name)


Chunk = FileChunk | BytesChunk


@dataclass(frozen=True)
class Source:
    """The input pictures.

    Attributes:
        path: a picture, folder, list or glob pattern as for infer.py; a Parquet file; or, with `column`, a folder of
            them.
        column: Parquet column with paths (relative to the Parquet file) or encoded pictures.
        name_column: Parquet column with the names of the results; default: the paths, else file name and row number.
        endings: file name extensions of pictures in folders.
    """

    path: str
    column: str | None
    name_column: str | None
    endings: tuple[str, ...]

    def chunks(self, size: int) -> Iterator[Chunk]:
        """Yields chunks of at most `size` pictures; for encoded pictures a chunk is a row group.

        Raises:
            DataError: no pictures, a missing column, or two results of the same name.
            UsageError: a column is given, but no Parquet files.
        """
        is_folder = Path(self.path).is_dir()
        if not self.path.lower().endswith(".parquet") and not (self.column and is_folder):
            if self.column or self.name_column:
                raise UsageError(f"--column: {self.path} is neither a Parquet file nor a folder of Parquet files")
            return _of_rows(self._pictures(), size)
        files = [root := Path(self.path)]
        if is_folder:
            found = root.rglob("*.parquet")
            files = sorted(path for path in found if not any(map(is_hidden, path.relative_to(root).parts)))
            if not files:
                raise DataError(f"{root}: contains no Parquet file (*.parquet)")
        column = self.column or "path"
        if _is_text(_field(_open(files[0]), files[0], column)):
            return _of_rows(self._paths(files, column), size)
        return self._row_groups(files, column)

    def _pictures(self) -> Iterator[tuple[str, str]]:
        """Yields paths and names of results as in infer.py: names without folders if all file names differ."""
        is_flat = all_names_differ(self.path, self.endings)
        for path, name in iter_results(self.path, self.endings, is_flat):
            yield str(path.absolute()), name.with_suffix("").as_posix()

    def _paths(self, files: list[Path], column: str) -> Iterator[tuple[str, str]]:
        columns, seen = [column, self.name_column or column], set()
        for file in files:
            reader = _open(file)
            for column_name in columns:
                if not _is_text(_field(reader, file, column_name)):
                    raise DataError(f"{file}: column {column_name}: expected text")
            for batch in reader.iter_batches(columns=list(dict.fromkeys(columns))):
                values = [batch.column(name).to_pylist() for name in columns]
                for path, name in zip(*values, strict=True):
                    if not path:
                        raise DataError(f"{file}: column {column}: a row without a path")
                    place = list_files.place(file.parent, path)
                    if self.name_column is None:
                        name = PurePosixPath(path).name if Path(path).is_absolute() else str(path)
                        name = PurePosixPath(name).with_suffix("").as_posix()
                    name = _checked(name, file)
                    _add(seen, name)
                    yield str(Path(place).absolute()), name

    def _row_groups(self, files: list[Path], column: str) -> Iterator[BytesChunk]:
        number, seen = 0, set()
        stems = [file.stem for file in files]
        root = Path(self.path) if Path(self.path).is_dir() else files[0].parent
        for file in files:
            reader, first = _open(file), 0
            if str(_field(reader, file, column)) not in ("binary", "large_binary"):
                raise DataError(f"{file}: column {column}: expected paths (text) or picture files' content (binary)")
            start = file.stem if stems.count(file.stem) == 1 else file.relative_to(root).with_suffix("").as_posix()
            if self.name_column is not None:
                _field(reader, file, self.name_column)
            for group in range(reader.num_row_groups):
                rows = reader.metadata.row_group(group).num_rows
                if self.name_column is None:
                    names = [f"{start}_{row:08d}" for row in range(first, first + rows)]
                else:
                    table = reader.read_row_group(group, columns=[self.name_column])
                    names = [_checked(name, file) for name in table.column(0).to_pylist()]
                for name in names:
                    _add(seen, name)
                if rows:
                    yield BytesChunk(number, str(file.absolute()), group, column, tuple(names))
                    number += 1
                first += rows


def _of_rows(rows: Iterable[tuple[str, str]], size: int) -> Iterator[FileChunk]:
    number, part = 0, []
    for row in rows:
        part.append(row)
        if len(part) == size:
            yield FileChunk(number, tuple(part))
            number, part = number + 1, []
    if part:
        yield FileChunk(number, tuple(part))


def _add(seen: set, name: str) -> None:
    """Records the digest of a name; digests need less memory than most names.

    Raises:
        DataError: the name occurs twice.
    """
    digest = hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=12).digest()
    if digest in seen:
        raise DataError(f"two pictures would both write {name}.png; give unique names with --name_column")
    seen.add(digest)


def _checked(name: str | None, file: Path) -> str:
    """Checks that the name of a result stays inside the output folder, and returns it.

    Raises:
        DataError: the name is empty, hidden or absolute, or leads out of the folder.
    """
    pure = PurePosixPath(name or "")
    hidden = not pure.name or any(part == ".." or is_hidden(part) for part in pure.parts)
    if not name or pure.is_absolute() or hidden or "\0" in name or "\\" in name:
        raise DataError(f"{file}: {name!r} cannot be the name of a result")
    return pure.as_posix()


def _open(file: Path):
    """Opens a Parquet file.

    Raises:
        DataError: the file is missing or not a Parquet file.
        UsageError: pyarrow is not installed.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise not_installed("Parquet files", error, "ray") from error
    try:
        return parquet.ParquetFile(file)
    except FileNotFoundError:
        raise DataError(f"{file}: no such file") from None
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{file}: cannot be read as Parquet ({str(error).splitlines()[0]})") from error


def _field(reader, file: Path, column: str):
    """Returns Arrow's data type of a column.

    Raises:
        DataError: the file has no such column.
    """
    schema = reader.schema_arrow
    if column not in schema.names:
        raise DataError(f"{file}: has no column {column!r}, it has {', '.join(schema.names)}; give --column")
    return schema.field(column).type


def _is_text(kind) -> bool:
    """Whether a column has a string type."""
    from pyarrow import types

    return types.is_string(kind) or types.is_large_string(kind)


@dataclass
class Plan:
    """All chunks in compressed form, because ten million paths need much memory.

    Attributes:
        packed: compressed chunks, see `unpack`.
        pictures: number of pictures in all chunks.
        digest: SHA-256 of the pictures and their division into chunks.
    """

    packed: list[bytes]
    pictures: int
    digest: str

    @classmethod
    def of(cls, chunks: Iterable[Chunk]) -> "Plan":
        """Compresses and counts chunks."""
        packed, pictures, digest = [], 0, hashlib.sha256()
        for chunk in chunks:
            packed.append(zlib.compress(pickle.dumps(chunk), 1))
            pictures += len(chunk)
            text = json.dumps([type(chunk).__name__, *vars(chunk).values()])
            digest.update(text.encode("utf-8", "surrogateescape"))
        return cls(packed, pictures, digest.hexdigest())


def unpack(packed: bytes) -> Chunk:
    """Returns a chunk from `Plan.packed`; unpickling is safe, because only this program creates the data."""
    return pickle.loads(zlib.decompress(packed))
