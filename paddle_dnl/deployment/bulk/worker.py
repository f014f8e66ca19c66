# SPDX-License-Identifier: Apache-2.0
"""`ChunkWorker`: labels chunks with one `Predictor`; pictures with complete results are skipped."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from paddle_dnl import user_code
from paddle_dnl.data.classes import Colors, colors_or_palette
from paddle_dnl.data.overlay import encode_label_png
from paddle_dnl.deployment.bulk.chunks import Chunk
from paddle_dnl.deployment.runtime.pipeline import Picture, run_pipeline
from paddle_dnl.deployment.runtime.predictor import Predictor
from paddle_dnl.errors import DataError, ExportError, OutputError, PaddleDnlError, sendable
from paddle_dnl.files.atomic import new_file, write_bytes
from paddle_dnl.files.problems import reason

import numpy as np

# Rows of a shard that are held before they are written.
_ROWS_HELD = 64
# How often a chunk is tried whose process dies, as of a crash in native code or for lack of memory.
_TRIES = 3
_TRIES_NAME = ".chunk-{:06d}.tries"
# Messages of unreadable pictures that a report carries.
_MOST_MESSAGES = 20


@dataclass(frozen=True)
class WorkerSettings:
    """Settings of a worker.

    Attributes:
        config: exported folder or its deploy.yaml, readable on every machine.
        save_dir: of the results, writable on every machine.
        format: `png`: a label picture for each picture; `parquet`: a shard for each chunk.
        skip_bad: go on without pictures that cannot be read.
        batch_size: pictures per run.
        custom_imports: the user's modules with transforms.
        predictor: further arguments of `Predictor`.
    """

    config: str
    save_dir: str
    format: str
    skip_bad: bool
    batch_size: int
    custom_imports: tuple[str, ...] = ()
    predictor: dict = field(default_factory=dict)


class ChunkWorker:
    """Labels the pictures of chunks; the model is loaded with the first one.

    Args:
        settings: see `WorkerSettings`.
    """

    def __init__(self, settings: WorkerSettings):
        self._settings, self._predictor = settings, None

    def run(self, chunk: Chunk) -> dict:
        """Labels a chunk.

        Returns:
            A report: numbers of pictures `done`, already `there` and `unreadable`, `messages` about the latter, and `error` in
            the form of `errors.sendable`, since exceptions that Ray sends between machines become long.
        """
        report = {"done": 0, "there": 0, "unreadable": 0, "messages": [], "error": None}
        tries = Path(self._settings.save_dir) / _TRIES_NAME.format(chunk.number)
        try:
            # While a chunk is done this file holds a byte per try; without a limit Ray would repeat a crash for ever.
            count = tries.stat().st_size if tries.exists() else 0
            if count >= _TRIES:
                raise ExportError(
                    f"{tries}: the process of this chunk died {count} times, by a crash or for lack of memory"
                )
            write_bytes(tries, b"x" * (count + 1), own=True)
            self._run(chunk, report)
        except PaddleDnlError as error:
            report["error"] = sendable(error)
        except OSError as error:
            name = str(error.filename or self._settings.save_dir)
            report["error"] = sendable(OutputError(f"{name}: {reason(error, name)}"))
        tries.unlink(missing_ok=True)
        return report

    def _run(self, chunk: Chunk, report: dict) -> None:
        folder, names = Path(self._settings.save_dir), chunk.names
        in_shards = self._settings.format == "parquet"
        shard = folder / f"part-{chunk.number:06d}.parquet"
        if in_shards:
            wanted = set() if shard.exists() else set(names)
        else:
            wanted = {name for name in names if not (folder / f"{name}.png").exists()}
        report["there"] = len(names) - len(wanted)
        if not wanted:
            return

        def unreadable(error: DataError) -> None:
            report["unreadable"] += 1
            if len(report["messages"]) < _MOST_MESSAGES:
                report["messages"].append(str(error))

        with _shard(shard, self._colors) if in_shards else _pictures(folder, self._colors) as write:
            timing = run_pipeline(
                self._model,
                (Picture(*one) for one in chunk.pictures(wanted)),
                lambda picture, pixels, label, probabilities: write(picture.name.as_posix(), label),
                batch_size=self._settings.batch_size,
                # Rows of a shard stay in order.
                writers=1 if in_shards else 2,
                unreadable=unreadable if self._settings.skip_bad else None,
            )
        report["done"] = timing.pictures

    @property
    def _model(self) -> Predictor:
        if self._predictor is None:
            user_code.import_for_export(list(self._settings.custom_imports))
            self._predictor = Predictor(self._settings.config, **self._settings.predictor)
        return self._predictor

    @property
    def _colors(self) -> Colors:
        return colors_or_palette(self._model.classes)


def forget_tries(save_dir: str | Path) -> None:
    """Removes the retry counters that earlier runs left for unfinished chunks."""
    for path in Path(save_dir).glob(_TRIES_NAME.replace("{:06d}", "*")):
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def _pictures(folder: Path, colors: Colors) -> Iterator:
    """Context that yields a function to write a label picture. Without a journal, since existing files are never overwritten."""

    def write(name: str, label: np.ndarray) -> None:
        write_bytes(folder / f"{name}.png", encode_label_png(label, colors), own=True)

    yield write


@contextlib.contextmanager
def _shard(path: Path, colors: Colors) -> Iterator:
    """Context that yields a function to add a row to a Parquet file, renamed at the end unless there is an exception."""
    import pyarrow
    from pyarrow import parquet

    schema = pyarrow.schema(
        [
            ("name", pyarrow.string()),
            ("height", pyarrow.int32()),
            ("width", pyarrow.int32()),
            ("label", pyarrow.binary()),
        ]
    )
    rows: list[dict] = []
    with new_file(path, own=True) as temporary:
        # PNGs are compressed already.
        with parquet.ParquetWriter(temporary, schema, compression="none") as writer:

            def write(name: str, label: np.ndarray) -> None:
                content = encode_label_png(label, colors)
                rows.append({"name": name, "height": label.shape[0], "width": label.shape[1], "label": content})
                if len(rows) >= _ROWS_HELD:
                    flush()

            def flush() -> None:
                writer.write_table(pyarrow.Table.from_pylist(rows, schema))
                rows.clear()

            yield write
            flush()
