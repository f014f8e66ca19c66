# SPDX-License-Identifier: Apache-2.0
"""`ChunkWorker`: predicts chunks of pictures with one `Predictor`; skips pictures whose results exist."""

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

# Rows of a Parquet file that are buffered before they are written.
_BUFFERED_ROWS = 64
# Maximum number of attempts at a chunk whose process dies, by a crash in native code or out of memory.
_TRIES = 3
_TRIES_NAME = ".chunk-{:06d}.tries"
# Maximum number of messages about unreadable pictures in a report.
_MAX_MESSAGES = 20


@dataclass(frozen=True)
class WorkerSettings:
    """Settings of a worker.

    Attributes:
        config: exported folder or its deploy.yaml, readable on every machine.
        save_dir: output folder, writable on every machine.
        format: `png`: a label picture per picture; `parquet`: a Parquet file per chunk.
        skip_bad: skip pictures that cannot be read, instead of raising an error.
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
    """Predicts the pictures of chunks; loads the model with the first chunk.

    Args:
        settings: see `WorkerSettings`.
    """

    def __init__(self, settings: WorkerSettings):
        self._settings, self._predictor = settings, None

    def run(self, chunk: Chunk) -> dict:
        """Predicts the pictures of a chunk.

        Returns:
            A report: number of pictures that are `done`, were already `there`, and are `unreadable`; `messages` about
                the
            unreadable ones; and `error` in the form of `errors.sendable`, because Ray wraps exceptions in long
            messages.
        """
        report = {"done": 0, "there": 0, "unreadable": 0, "messages": [], "error": None}
        tries = Path(self._settings.save_dir) / _TRIES_NAME.format(chunk.number)
        try:
            # During the run this file has one byte per attempt. Without the limit Ray would repeat a crash forever.
            count = tries.stat().st_size if tries.exists() else 0
            if count >= _TRIES:
                raise ExportError(f"{tries}: the process of this chunk died {count} times, by a crash or out of memory")
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
            if len(report["messages"]) < _MAX_MESSAGES:
                report["messages"].append(str(error))

        with _shard(shard, self._colors) if in_shards else _pictures(folder, self._colors) as write:
            timing = run_pipeline(
                self._model,
                (Picture(*one) for one in chunk.pictures(wanted)),
                lambda picture, pixels, label, probabilities: write(picture.name.as_posix(), label),
                batch_size=self._settings.batch_size,
                # One writer keeps the rows of a Parquet file in order.
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
    """Removes the attempt counters that earlier runs left for unfinished chunks."""
    for path in Path(save_dir).glob(_TRIES_NAME.replace("{:06d}", "*")):
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def _pictures(folder: Path, colors: Colors) -> Iterator:
    """Context that yields a function to write a label picture. No write journal: files are never overwritten."""

    def write(name: str, label: np.ndarray) -> None:
        write_bytes(folder / f"{name}.png", encode_label_png(label, colors), own=True)

    yield write


@contextlib.contextmanager
def _shard(path: Path, colors: Colors) -> Iterator:
    """Context that yields a function to add a row to a Parquet file, which is written atomically."""
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
        # PNGs are already compressed.
        with parquet.ParquetWriter(temporary, schema, compression="none") as writer:

            def write(name: str, label: np.ndarray) -> None:
                content = encode_label_png(label, colors)
                rows.append({"name": name, "height": label.shape[0], "width": label.shape[1], "label": content})
                if len(rows) >= _BUFFERED_ROWS:
                    flush()

            def flush() -> None:
                writer.write_table(pyarrow.Table.from_pylist(rows, schema))
                rows.clear()

            yield write
            flush()
