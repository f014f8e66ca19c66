# SPDX-License-Identifier: Apache-2.0
"""Installs a finished export into its folder; files of other programs are never replaced."""

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from paddle_dnl.deployment.export import fastdeploy
from paddle_dnl.deployment.runtime.deploy_config import FILE_NAME, FP16_NAME, INT8_NAME, ONNX_NAME
from paddle_dnl.files import outputs
from paddle_dnl.files.atomic import discard, make_temporary
from paddle_dnl.files.reading import file_digest

# All files of an export. Descriptions are removed first and written last, so that they never name missing files.
EXPORT_FILES = (
    "model.json",
    "model.pdmodel",
    "model.pdiparams",
    "model.pdiparams.info",
    ONNX_NAME,
    INT8_NAME,
    FP16_NAME,
    FILE_NAME,
    *fastdeploy.EXPORT_FILES,
)

_DESCRIPTIONS = (FILE_NAME, fastdeploy.FILE_NAME)


def prepare_folder(
    save_dir: str | Path, inputs: Iterable[str | Path | None], names: Iterable[str] = EXPORT_FILES
) -> Path:
    """Checks that the export may be written; creates parent folders and returns the resolved path.

    Args:
        save_dir: as the user gave it.
        inputs: input files of the program.
        names: files that will be written or removed.

    Raises:
        UsageError: the path or a part of it is a file.
        OutputError: such a file is an input, or of another program.
    """
    outputs.require_folder(save_dir)
    place = Path(save_dir).resolve()
    place.parent.mkdir(parents=True, exist_ok=True)
    outputs.check_outputs([place / name for name in names], inputs, root=place)
    return place


@contextlib.contextmanager
def temporary_folder(place: Path) -> Iterator[Path]:
    """Context with an empty folder on the file system of `place`, which may be a mount point; removed at the end.

    Args:
        place: from `prepare_folder`.

    Raises:
        OSError: names `place` if a write in the block failed without a file name, as in Python, NumPy and ONNX.
    """
    work = make_temporary(place / FILE_NAME if place.is_dir() else place)
    try:
        yield work
    except OSError as error:
        if error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror or str(error), str(place)) from error
    finally:
        discard(work)


def install(export: Path, save_dir: Path, replaced: Iterable[str] = EXPORT_FILES) -> None:
    """Moves all files of `export` into `save_dir`; other files there are kept.

    Args:
        export: a folder in `temporary_folder(save_dir)`.
        save_dir: from `prepare_folder`.
        replaced: names of earlier files to remove, also without a new one in `export`; restored if a move fails.
    """
    made = [path.relative_to(export).as_posix() for path in export.rglob("*") if path.is_file()]
    made.sort(key=lambda name: (name in _DESCRIPTIONS, name))
    digests = {name: file_digest(export / name) for name in made}
    if not save_dir.exists():
        for name in made:
            outputs.record(export / name, digests[name], folder=export)
        os.replace(export, save_dir)
        return
    for name in made:
        outputs.record(save_dir / name, digests[name])
    aside = export.parent / "aside"
    earlier = sorted({*replaced, *made}, key=lambda name: name not in _DESCRIPTIONS)
    try:
        for name in earlier:
            if (save_dir / name).is_file():
                (aside / name).parent.mkdir(parents=True, exist_ok=True)
                os.replace(save_dir / name, aside / name)
        for name in made:
            (save_dir / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(export / name, save_dir / name)
    except BaseException:
        for name in reversed(earlier):
            if (aside / name).exists():
                os.replace(aside / name, save_dir / name)
        raise
    for name in earlier:
        for folder in [save_dir / above for above in Path(name).parents if above.name]:
            with contextlib.suppress(OSError):  # not empty, or missing
                folder.rmdir()
