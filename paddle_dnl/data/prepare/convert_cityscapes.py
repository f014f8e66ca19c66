# SPDX-License-Identifier: Apache-2.0
"""Converts Cityscapes polygons to label pictures with the 19 training classes, with the official cityscapesscripts."""

import io
from pathlib import Path

from paddle_dnl.data.images.image_files import walk_files
from paddle_dnl.data.prepare.label_files import is_done
from paddle_dnl.data.processes import map_in_processes
from paddle_dnl.errors import DataError, PaddleDnlError
from paddle_dnl.files import outputs
from paddle_dnl.files.atomic import write_bytes
from paddle_dnl.log import logger, progress
from paddle_dnl.optional import not_installed

_POLYGONS = "_gtFine_polygons.json"
_LABELS = "_gtFine_labelTrainIds.png"


def official():
    """Imports the official annotation reader and painter.

    Raises:
        UsageError: cityscapesscripts is not installed.
    """
    try:
        from cityscapesscripts.helpers.annotation import Annotation
        from cityscapesscripts.preparation.json2labelImg import createLabelImage
    except ImportError as error:
        raise not_installed("polygons", error, "cityscapes") from error
    return Annotation, createLabelImage


def convert_file(polygons: Path, force: bool = False) -> str | None:
    """Writes the label picture beside a polygons file. Returns an error message, or None.

    Args:
        polygons: a `*_gtFine_polygons.json`.
        force: convert also if the label picture is up to date.
    """
    target = polygons.with_name(polygons.name[: -len(_POLYGONS)] + _LABELS)
    if not force and is_done(polygons, target):
        return None
    annotation_class, create_label_image = official()
    try:
        annotation = annotation_class()
        annotation.fromJsonFile(str(polygons))
        picture = create_label_image(annotation, "trainIds")
        if picture is None:
            return f"{polygons}: cannot be painted"
        buffer = io.BytesIO()
        picture.save(buffer, format="PNG")
        write_bytes(target, buffer.getvalue(), replace=force)
    except PaddleDnlError as error:
        return str(error)
    except (SystemExit, Exception) as error:  # cityscapesscripts calls exit() on unknown labels
        return f"{polygons}: {type(error).__name__}: {error}"
    return None


def _convert(force: bool, polygons: Path) -> str | None:
    return convert_file(polygons, force)


def convert_tree(root: str | Path, num_workers: int = 8, force: bool = False) -> int:
    """Converts all polygons below `root/gtFine`. Returns the number of files.

    Args:
        root: folder that contains `gtFine`.
        num_workers: number of worker processes.
        force: convert also files whose label picture is up to date.

    Raises:
        DataError: nothing to convert, or files that cannot be converted (named).
        UsageError: cityscapesscripts is not installed.
    """
    official()
    files = list(walk_files(Path(root) / "gtFine", (_POLYGONS.lower(),), depth=2))
    if not files:
        raise DataError(f"{root}: no gtFine/SPLIT/CITY/*{_POLYGONS}; give the folder that holds gtFine")
    outputs.check_outputs((), (), root=root)
    results = map_in_processes(_convert, force, files, num_workers, what="that converts")
    found = list(progress(results, "convert", len(files)))
    problems = [text for text in found if text]
    if problems:
        raise DataError(f"{len(problems)} of {len(files)} files cannot be converted:\n" + "\n".join(problems[:5]))
    logger.info(f"{root}: {len(files)} label pictures")
    return len(files)
