# SPDX-License-Identifier: Apache-2.0
"""Parser of list files (an image and optionally its label per line) and of image sets (lists of names).

Byte order marks, CRLF, empty lines, spaces in names and names that are not valid UTF-8 are supported.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from paddle_dnl.errors import DataError
from paddle_dnl.files.reading import open_file

_BLANK = " \t"
# Longer lines are no names; a file whose lines end with CR only is one long line.
_LONGEST_LINE = 1 << 26
_SEPARATORS = (",", "\t", " ")


def lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """Yields (line number, text) of the non-empty lines, stripped; only one line is in memory.

    Raises:
        DataError: the file is unreadable, or not text.
    """
    try:
        with open_file(path) as file:
            number = 0
            while content := file.readline(_LONGEST_LINE):
                if len(content) == _LONGEST_LINE:
                    raise DataError(f"{path}, line {number + 1}: longer than {_LONGEST_LINE} bytes; it is no list")
                # `fsdecode` keeps bytes that are not UTF-8, so that the file is found.
                text = content.decode("utf-8" if number else "utf-8-sig", "surrogateescape")
                # Not `splitlines` and `strip`, which treat some Unicode letters as line breaks or spaces.
                text = text.removesuffix("\n").removesuffix("\r")
                for line in re.split("\r\n|\r|\n", text) if "\r" in text else (text,):
                    number += 1
                    if "\0" in line:
                        raise DataError(
                            f"{path}, line {number}: holds zero bytes; it is no list, or must be saved as UTF-8"
                        )
                    if line := line.strip(_BLANK):
                        yield number, line
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


def is_file(path: Path) -> bool:
    """Whether the file exists; False for invalid names."""
    try:
        return path.is_file()
    except OSError:  # the name is too long
        return False


def place(root: Path, name: str) -> Path:
    """The path of a name in a list. Backslashes are separators if the list was made on Windows."""
    path = root / name
    if "\\" in name and not is_file(path) and is_file(root / name.replace("\\", "/")):
        return root / name.replace("\\", "/")
    return path


def names_of(line: str, root: Path, separator: str = " ", labelled: bool = True) -> list[str]:
    """The names in a line: an image, or an image and its label.

    The given separator is tried first, then comma, tab and space. File names may contain spaces: if several separators give
    two names, the one with which both files exist is used, else the one with which the image exists.

    Args:
        line: a stripped line.
        root: folder to which names are relative.
        separator: the separator that is tried first.
        labelled: False if a line may be an image without a label.
    """
    if not labelled and is_file(root / line):
        return [line]
    candidates = []
    for candidate in dict.fromkeys((separator, *_SEPARATORS)):
        parts = [part.strip(_BLANK) for part in line.split(candidate)]
        if len(parts) == 2 and all(parts) and parts not in candidates:
            candidates.append(parts)
    if len(candidates) < 2:
        return candidates[0] if candidates else [line]
    exist = [[is_file(place(root, part)) for part in parts] for parts in candidates]
    best = max(range(len(candidates)), key=lambda i: (all(exist[i]), exist[i][0], -i))
    return candidates[best]


def pairs_of(path: str | Path, root: str | Path, separator: str = " ", labelled: bool = True) -> Iterator[tuple]:
    """Yields the (image, label) file names of a list file, one `image separator label` per line, read lazily.

    Args:
        path: the list.
        root: folder to which names are relative.
        separator: tried first; comma, tab and space are accepted too.
        labelled: refuse lines without a label; otherwise their label is None.

    Raises:
        DataError: the list is unreadable or empty, the separator is empty, or a line is no pair (the message has its number).
    """
    root, found = Path(root), False
    folder = "" if str(root) == "." else os.path.join(root, "")
    if not separator:
        raise DataError(f"{path}: the separator between image and label must not be empty")
    # Lines without any doubt: two names without separators and backslashes, whose parts do not begin with a dot, so that
    # `pathlib` does not change them. A million other lines take some seconds longer.
    excluded = "/\\\\" + re.escape(separator + "".join(_SEPARATORS))
    part = rf"[^.{excluded}][^{excluded}]*"
    name = f"({part}(?:/{part})*)"
    plain = re.compile(name + re.escape(separator) + name).fullmatch
    for number, line in lines(path):
        found = True
        if labelled and (pair := plain(line)):
            yield folder + pair[1], folder + pair[2]
            continue
        names = names_of(line, root, separator, labelled)
        if len(names) == 1 and labelled:
            raise DataError(
                f"{path}, line {number}: expected `image{separator}label`, found {line!r}; "
                "use a comma as separator when file names hold blanks"
            )
        placed = [os.fspath(place(root, name)) for name in names]
        yield placed[0], placed[1] if len(placed) == 2 else None
    if not found:
        raise DataError(f"{path}: lists no files")


def read_list(path: str | Path, root: str | Path, separator: str = " ", labelled: bool = True) -> list[tuple]:
    """`pairs_of` as a list of paths."""
    found = pairs_of(path, root, separator, labelled)
    return [(Path(image), None if label is None else Path(label)) for image, label in found]


def read_image_set(path: Path, advice: str = "") -> list[str]:
    """The image names in a file of PASCAL VOC's `ImageSets`, separated by white space.

    Args:
        path: the file.
        advice: added to the error if the file is missing: what to do.

    Raises:
        DataError: the file is missing, unreadable or empty.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such image set" + (f"; {advice}" if advice else ""))
    names = [name for _, line in lines(path) for name in line.split()]
    if not names:
        raise DataError(f"{path}: lists no images")
    return names
