# SPDX-License-Identifier: Apache-2.0
"""List files: one image per line, with its label where there is one; and image sets, lists of names.

The only parser of both: names are bytes on disk, so a byte order mark, CRLF, blank lines, blanks in names and bytes that
are not UTF-8 do no harm anywhere.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from paddle_dnl.errors import DataError
from paddle_dnl.files.reading import open_file

_BLANK = " \t"
# A file whose lines end with a carriage return alone is one line to the system.
_LONGEST_LINE = 1 << 26
_SEPARATORS = (",", "\t", " ")


def lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """(number, text) of the lines that are not empty, without blanks around them; one line at a time is in memory.

    Raises:
        DataError: unreadable, or not text.
    """
    try:
        with open_file(path) as file:
            number = 0
            while content := file.readline(_LONGEST_LINE):
                if len(content) == _LONGEST_LINE:
                    raise DataError(f"{path}, line {number + 1}: longer than {_LONGEST_LINE} bytes; it is no list")
                # Bytes that are not UTF-8 must survive to find their file.
                text = content.decode("utf-8" if number else "utf-8-sig", "surrogateescape")
                # Not `splitlines` and `strip`: to them some letters of file names are line breaks or blanks.
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
    """Whether there is such a file; False for names that no file can have."""
    try:
        return path.is_file()
    except OSError:  # a name that is too long
        return False


def place(root: Path, name: str) -> Path:
    """The file that a list names; backslashes of lists from Windows are read as what they mean there."""
    path = root / name
    if "\\" in name and not is_file(path) and is_file(root / name.replace("\\", "/")):
        return root / name.replace("\\", "/")
    return path


def names_of(line: str, root: Path, separator: str = " ", labelled: bool = True) -> list[str]:
    """The names in a line: an image, or an image and its label.

    The configured separator comes first, then comma, tab and blank. File names may hold blanks: where several separators
    make two names of the line, the one whose files exist is right, else the one whose image exists.

    Args:
        line: without blanks around it.
        root: the folder that names are relative to.
        separator: tried first.
        labelled: False where a line may be an image alone.
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
    """The (image, label) file names of a list file, one `image separator label` per line; one line at a time is in memory.

    Args:
        path: the list.
        root: the folder that names are relative to.
        separator: tried first; comma, tab and blank are read too.
        labelled: refuse lines without a label; otherwise the label is None.

    Raises:
        DataError: unreadable or empty list, an empty separator, or a line that is no pair (with its number).
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
    """The pairs of `pairs_of` as paths."""
    found = pairs_of(path, root, separator, labelled)
    return [(Path(image), None if label is None else Path(label)) for image, label in found]


def read_image_set(path: Path, advice: str = "") -> list[str]:
    """The image names in a file of PASCAL VOC's `ImageSets`, divided by white space.

    Args:
        path: the file.
        advice: what to do when it is missing.

    Raises:
        DataError: missing, unreadable or empty.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such image set" + (f"; {advice}" if advice else ""))
    names = [name for _, line in lines(path) for name in line.split()]
    if not names:
        raise DataError(f"{path}: lists no images")
    return names
