# SPDX-License-Identifier: Apache-2.0
"""The note `import.json` that `data import` leaves in its folder: source and settings, and whether the import is complete."""

from pathlib import Path

from paddle_dnl.data.prepare.annotations import read_json
from paddle_dnl.errors import DataError

NOTE = "import.json"
UNFINISHED = "unfinished"  # key of a note whose import has not ended, or ended with an error


def require_complete(root: Path) -> None:
    """Refuses a folder that `data import` did not finish.

    Raises:
        DataError: its `import.json` says so.
    """
    if not (root / NOTE).is_file():
        return
    try:
        note = read_json(root / NOTE)
    except DataError:  # the note is written atomically, so this is a file of another program
        return
    if isinstance(note, dict) and note.get(UNFINISHED):
        raise DataError(
            f"{root}: the import from {note.get('source')} is incomplete; run `paddle-dnl data import` again with the same flags"
        )
