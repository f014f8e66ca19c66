"""Folders and files that are there whole or not at all, whenever the process dies.

What is being written has a name with `.tmp-` and gets its own by a rename; a folder that it replaces is called `.old-` for
the moment between two renames. `recover` tidies both, so it comes before anything is looked up by name.
"""

import os
import shutil
import tempfile
from pathlib import Path

TEMPORARY, _OLD = ".tmp-", ".old-"


def flush(path: Path) -> None:
    """Forces a file or folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_temporary(final: Path) -> Path:
    """An empty folder to be filled beside `final`, whose name it gets by `put_in_place`."""
    folder = Path(tempfile.mkdtemp(prefix=f"{TEMPORARY}{final.name}-", dir=final.parent))
    folder.chmod(0o755)
    return folder


def discard(folder: Path) -> None:
    """Removes a folder; one that is half removed when the process dies has no name under which it would be used."""
    if folder.exists():
        left = Path(tempfile.mkdtemp(prefix=f"{TEMPORARY}removed-", dir=folder.parent))
        os.rename(folder, left / folder.name)
        shutil.rmtree(left, ignore_errors=True)


def put_in_place(temporary: Path, final: Path) -> None:
    """Renames a finished folder to its name; an older folder of that name is moved aside first and removed last."""
    aside = final.with_name(f"{_OLD}{final.name}")
    discard(aside)
    if final.exists():
        os.rename(final, aside)
    try:
        os.rename(temporary, final)
    except OSError:
        if aside.exists():
            os.rename(aside, final)
        raise
    flush(final.parent)
    discard(aside)


def write_text(path: Path, text: str) -> None:
    """Writes a file in UTF-8, whatever the locale: the configuration reader knows no other."""
    temporary = make_temporary(path)
    try:
        (temporary / path.name).write_text(text, encoding="utf-8")
        flush(temporary / path.name)
        os.rename(temporary / path.name, path)
        flush(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def recover(save_dir: str | Path) -> None:
    """Tidies what a killed run left in `save_dir`: a folder moved aside gets its name back, half-written ones go."""
    for aside in Path(save_dir).glob(f"{_OLD}*"):
        final = aside.with_name(aside.name[len(_OLD) :])
        if final.exists():
            discard(aside)
        else:
            os.rename(aside, final)
    for left in Path(save_dir).glob(f"{TEMPORARY}*"):
        shutil.rmtree(left, ignore_errors=True)
