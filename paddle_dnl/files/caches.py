# SPDX-License-Identifier: Apache-2.0
"""Cache folders: in the user's home, or a temporary folder if the home is not writable, as in some containers."""

import functools
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from paddle_dnl.log import logger, printable


def writable_cache(folder: Path) -> Path:
    """`folder`, created if needed, or if that is not writable a temporary folder, which is logged once.

    Args:
        folder: may begin with `~`.

    Raises:
        OSError: the temporary folder cannot be created either.
    """
    try:
        folder = folder.expanduser()
    except RuntimeError:
        return _temporary(folder, "this user has no home")
    why = _obstacle(folder)
    return folder if why is None else _temporary(folder, why)


def paddleseg_home() -> Path:
    """PaddleSeg's folder for downloads and results: `$SEG_HOME`, by default `~/.paddleseg`."""
    return Path(os.environ.get("SEG_HOME", "~/.paddleseg"))


def package_cache(*names: str) -> Path:
    """This package's cache folder in `$XDG_CACHE_HOME` (default `~/.cache`), or a subfolder; see `writable_cache`."""
    return writable_cache(Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").joinpath("paddle-dnl", *names))


def _obstacle(folder: Path) -> str | None:
    """Why a folder, created if needed, is not writable; None if it is."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return error.strerror or str(error)
    return None if os.access(folder, os.W_OK | os.X_OK) else "Permission denied"


@functools.cache
def _temporary(folder: Path, why: str, say: Callable[[str], None] = logger.warning) -> Path:
    owner = os.getuid() if hasattr(os, "getuid") else "user"
    # Not a folder that another user owns or can write to: they could plant files in it.
    top = Path(tempfile.gettempdir()) / f"paddle_dnl_cache_{owner}"
    top.mkdir(mode=0o700, exist_ok=True)
    if top.is_symlink() or (hasattr(os, "getuid") and top.stat().st_uid != os.getuid()) or top.stat().st_mode & 0o077:
        top = Path(tempfile.mkdtemp(prefix="paddle_dnl_cache_"))
    other = top / folder.name
    other.mkdir(exist_ok=True)
    say(f"{folder.parent if folder.name == 'home' else folder}: cannot be written ({why}); caches go to {other}")
    return other


def provide_home() -> None:
    """Points HOME to a temporary folder if it is not writable, since libraries fail without their caches there.

    Paddle stores traced code, Matplotlib fonts and VisualDL settings there. `~/.paddleseg` of the real home is still read. Child
    processes inherit HOME.
    """
    home = Path(os.path.expanduser("~"))
    why = _obstacle(home / ".cache") or _obstacle(home)
    if why is None:
        return
    if (home / ".paddleseg").is_dir():
        os.environ.setdefault("SEG_HOME", str(home / ".paddleseg"))
    # Not logged, since logs go to stdout, which may be the output of a program.
    os.environ["HOME"] = str(
        _temporary(home / "home", why, lambda text: print(f"Warning: {printable(text)}", file=sys.stderr, flush=True))
    )
