# SPDX-License-Identifier: Apache-2.0
"""Which images a path on the command line means, and the name under which each one's result is stored."""

import glob
import os
from collections.abc import Iterator
from pathlib import Path

from paddle_dnl.errors import DataError

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")


def is_hidden(name: str) -> bool:
    """Whether a file or folder is no content: `.git`, `.ipynb_checkpoints`, macOS's `._a.png` and `__MACOSX`."""
    return name.startswith(".") or name == "__MACOSX"


def walk_files(folder: str | Path, endings: tuple[str, ...] = EXTENSIONS) -> Iterator[Path]:
    """Files below a folder, sorted, whose names end in one of `endings`, in any case of letters.

    Hidden files and folders are left out (`is_hidden`); links to folders are followed, each real folder once.
    """
    seen = set()
    found = []
    for here, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(here)
        if real in seen:  # a link back to where the walk has been
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        found += [Path(here) / n for n in names if not is_hidden(n) and n.lower().endswith(endings)]
    yield from sorted(found)


def _from_list(path: Path) -> list[tuple[Path, Path]]:
    """The first column of a list file; relative names are relative to the list."""
    found = []
    try:
        lines = path.read_bytes().decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from error
    for line in filter(None, map(str.strip, lines)):
        name = line
        # A whole line that is a file wins, so that names with spaces need no quoting.
        for separator in (None, ",", "\t", " "):
            name = line if separator is None else line.split(separator)[0].strip()
            if (path.parent / name).is_file():
                break
        else:
            raise DataError(f"{path}: {line!r} names no file below {path.parent}")
        relative = Path(name)
        found.append((path.parent / name, relative if not relative.is_absolute() else Path(relative.name)))
    return found


def find_pairs(path: str | Path) -> list[tuple[Path, Path | None]]:
    """The (image, label) of each line of a list file; label None where a line names only an image.

    Columns are divided as in dataset lists: by comma, tab or space. Names are relative to the list.

    Raises:
        DataError: no such list, an empty one, or a line that names a file that is not there.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such list of images")
    found: list[tuple[Path, Path | None]] = []
    lines = [line.strip() for line in path.read_bytes().decode("utf-8-sig", "replace").splitlines()]
    for line in filter(None, lines):
        for separator in (None, ",", "\t", " "):
            names = [line] if separator is None else [part.strip() for part in line.split(separator)]
            if (path.parent / names[0]).is_file():
                break
        else:
            raise DataError(f"{path}: {line!r} names no image below {path.parent}")
        label = path.parent / names[1] if len(names) > 1 and names[1] else None
        if label is not None and not label.is_file():
            raise DataError(f"{path}: {label}: no such label picture")
        found.append((path.parent / names[0], label))
    if not found:
        raise DataError(f"{path}: names no images")
    return found


def find_images(path: str | Path, endings: tuple[str, ...] = EXTENSIONS) -> list[tuple[Path, Path]]:
    """Images as (file, name relative to what was given), in a fixed order.

    Args:
        path: an image, a folder (searched with all its subfolders), a .txt list (first column), or a pattern with `*`.
        endings: of pictures in folders and patterns.

    Raises:
        DataError: nothing there, or two images would share one name.
    """
    path = Path(path)
    if path.is_dir():
        found = [(p, p.relative_to(path)) for p in walk_files(path, endings)]
    elif path.is_file():
        found = _from_list(path) if path.suffix.lower() == ".txt" else [(path, Path(path.name))]
    elif any(sign in str(path) for sign in "*?["):
        files = sorted(Path(p) for p in glob.glob(str(path), recursive=True))
        files = [p for p in files if p.suffix.lower() in endings and not is_hidden(p.name)]
        parents = {p.parent for p in files}
        found = [(p, Path(p.name) if len(parents) == 1 else Path(*p.parts[-2:])) for p in files]
    else:
        raise DataError(f"{path}: no such image, folder or list")
    if not found:
        raise DataError(f"{path}: no images there (known are {', '.join(endings)})")
    by_name: dict[Path, Path] = {}
    for file, name in found:
        # Results are PNGs: a.jpg and a.png would overwrite each other.
        stem = name.with_suffix("")
        if ".." in name.parts:
            raise DataError(f"{path}: {name} leads out of the folder of results")
        if stem in by_name and by_name[stem] != file:
            raise DataError(f"{path}: {by_name[stem]} and {file} would both be stored as {stem}.png")
        by_name[stem] = file
    return found
