# SPDX-License-Identifier: Apache-2.0
"""Finds the image files that a command-line path means (image, folder, list or pattern), and the names of their results."""

import functools
import glob
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

from paddle_dnl.data.images import list_files
from paddle_dnl.errors import DataError, UsageError
from paddle_dnl.log import logger

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")


def is_hidden(name: str) -> bool:
    """Whether a file or folder is to be skipped: names with a leading dot (`.git`, macOS's `._a.png`) and `__MACOSX`."""
    return name.startswith(".") or name == "__MACOSX"


def walk_files(folder: str | Path, endings: tuple[str, ...] = EXTENSIONS, depth: int | None = None) -> Iterator[Path]:
    """Yields the files below a folder whose names end in one of `endings` (case-insensitive), sorted by path.

    Hidden files and folders are skipped (`is_hidden`). Links to folders are followed, each real folder once. Only the names of
    one folder are in memory at a time.

    Args:
        folder: the folder to search.
        endings: in lower case.
        depth: only files in subfolders of this depth, 0 for `folder` itself; None: all.
    """
    seen = set()

    def walk(here: Path, level: int) -> Iterator[Path]:
        real = os.path.realpath(here)
        if real in seen:  # a link to a folder that was already searched
            return
        seen.add(real)
        try:
            with os.scandir(here) as entries:
                found = sorted((e.name, e.is_dir()) for e in entries if not is_hidden(e.name))
        except FileNotFoundError:
            return
        except OSError as error:
            raise DataError(f"{here}: cannot be read ({error.strerror})") from error
        for name, is_folder in found:
            if is_folder:
                if depth is None or level < depth:
                    yield from walk(here / name, level + 1)
            elif level == (level if depth is None else depth) and name.lower().endswith(endings):
                yield here / name

    yield from walk(Path(folder), 0)


def in_any_case(path: str | Path) -> Path:
    """The file, or if it does not exist, the file in the same folder whose name differs in upper and lower case only.

    Returns the path unchanged if there is no such file, or more than one.
    """
    path = Path(path)
    if path.is_file() or not path.parent.is_dir():
        return path
    found = _spellings(path.parent, path.parent.stat().st_mtime_ns).get(path.name.lower(), [])
    return path.parent / found[0] if len(found) == 1 else path


@functools.lru_cache(maxsize=8)
def _spellings(folder: Path, changed: int) -> dict[str, list[str]]:
    """File names of a folder by their lower-case form. `changed`, its modification time, is part of the cache key."""
    names: dict[str, list[str]] = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_file():
                names.setdefault(entry.name.lower(), []).append(entry.name)
    return names


def _from_list(path: Path) -> Iterator[tuple[Path, Path]]:
    """Yields the images of a list file; relative names are relative to the list."""
    for _, line in list_files.lines(path):
        name = list_files.names_of(line, path.parent, labelled=False)[0]
        file = list_files.place(path.parent, name)
        if not list_files.is_file(file):
            raise DataError(f"{path}: {line!r} names no file below {path.parent}")
        relative = file.relative_to(path.parent) if not Path(name).is_absolute() else Path(file.name)
        yield file, relative


def find_pairs(path: str | Path) -> list[tuple[Path, Path | None]]:
    """The (image, label) of each line of a list file, relative to its folder; the label is None if a line has only an image.

    Raises:
        DataError: the list does not exist or is empty, or names a file that does not exist.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such list of images")
    pairs = list_files.read_list(path, path.parent, labelled=False)
    for image, label in pairs:
        if not list_files.is_file(image):
            raise DataError(f"{path}: {str(image)!r} names no image below {path.parent}")
        if label is not None and not list_files.is_file(label):
            raise DataError(f"{path}: {label}: no such label picture")
    return pairs


def iter_images(path: str | Path, endings: tuple[str, ...] = EXTENSIONS) -> Iterator[tuple[Path, Path]]:
    """Yields images as (file, relative name of its results), in a fixed order. Folders and lists are read lazily.

    Args:
        path: an image, a folder (searched recursively), a .txt list (first column), or a pattern with `*`.
        endings: endings of pictures in folders and patterns.

    Raises:
        DataError: there are no images, or two images would have results of the same name.
    """
    path = Path(path)
    if path.is_dir():
        found = ((p, p.relative_to(path)) for p in walk_files(path, endings))
    elif path.is_file():
        found = _from_list(path) if path.suffix.lower() == ".txt" else iter([(path, Path(path.name))])
    elif any(sign in str(path) for sign in "*?["):
        files = sorted(Path(p) for p in glob.glob(str(path), recursive=True))
        fixed = sum(1 for _ in itertools.takewhile(lambda part: not any(sign in part for sign in "*?["), path.parts))
        files = [p for p in files if p.suffix.lower() in endings and not any(map(is_hidden, p.parts[fixed:]))]
        parents = {p.parent for p in files}
        found = ((p, Path(p.name) if len(parents) == 1 else Path(*p.parts[-2:])) for p in files)
    else:
        raise DataError(f"{path}: no such image, folder or list")
    is_folder, here = path.is_dir(), None
    stems: dict[Path, dict[str, Path]] = {}
    for file, name in found:
        if is_folder and file.parent != here:  # sorted by folder: earlier folders do not occur again
            here = file.parent
            stems = {folder: names for folder, names in stems.items() if folder in name.parents}
        if ".." in name.parts:
            raise DataError(f"{path}: {name} leads out of the folder of results")
        # Results are PNGs: a.jpg and a.png would overwrite each other.
        other = stems.setdefault(name.parent, {}).setdefault(name.stem, file)
        if other != file:
            raise DataError(f"{path}: {other} and {file} would both be stored as {name.with_suffix('.png')}")
        yield file, name
    if not stems:
        raise DataError(f"{path}: no images there (known are {', '.join(endings)})")


def find_images(path: str | Path, endings: tuple[str, ...] = EXTENSIONS) -> list[tuple[Path, Path]]:
    """`iter_images` as a list."""
    return list(iter_images(path, endings))


def require_outside(save_dir: str | Path, image_path: str | Path) -> None:
    """Refuses an output folder that is the input folder, or that lies below it and has pictures: they would be taken as inputs.

    An empty or missing folder below the input folder is allowed, as in `--image_path . --save_dir output`; so are hidden
    folders, because `walk_files` skips them.

    Raises:
        UsageError: names both folders.
    """
    if not os.path.isdir(image_path):
        return
    source, target = Path(image_path).resolve(), Path(save_dir).resolve()
    if source == target:
        raise UsageError(f"--save_dir {save_dir}: is the folder of pictures (--image_path); give another folder")
    if not target.is_relative_to(source) or any(map(is_hidden, target.relative_to(source).parts)):
        return
    if (found := next(walk_files(target), None)) is not None:
        raise UsageError(
            f"--save_dir {save_dir}: lies in the folder of pictures (--image_path {image_path}), so that {found} would be "
            "taken for one of them; give a folder outside of it, or empty it"
        )


def all_names_differ(path: str, endings: tuple[str, ...]) -> bool:
    """Whether all results fit into one folder, as PaddleSeg's infer.py writes them: no two pictures share a name."""
    stems: set[str] = set()
    for _, name in iter_images(path, endings):
        if name.stem in stems:
            logger.info(f"several pictures are called {name.stem}: results are stored in their sub-folders")
            return False
        stems.add(name.stem)
    return True


def iter_results(path: str, endings: tuple[str, ...], is_flat: bool) -> Iterator[tuple[Path, Path]]:
    """The pictures of `iter_images`, each with the name of its results: without sub-folders where `is_flat`."""
    for file, name in iter_images(path, endings):
        yield file, Path(name.name) if is_flat else name
