# SPDX-License-Identifier: Apache-2.0
"""Converts two ways in which importing Paddle can end a process into error messages.

Paddle 2.6's library contains zlib 1.2.8 and exports its functions. If the system's libz is loaded only as a dependency
of Paddle, calls inside libz go to those old functions, and the next compression (PNG, gzip, scipy) crashes. Loading
zlib before Paddle prevents this, so `import zlib` is the first line of this package. A program that imported Paddle
before this package cannot be repaired.
"""

import ctypes
import sys


def _loaded_libraries() -> list[str]:
    """Returns the shared libraries of this process in the order of symbol lookup; empty if unknown."""
    try:
        iterate = ctypes.CDLL(None).dl_iterate_phdr
    except (AttributeError, OSError, TypeError):
        return []

    class Info(ctypes.Structure):
        _fields_ = [("address", ctypes.c_void_p), ("name", ctypes.c_char_p)]

    names: list[str] = []

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(Info), ctypes.c_size_t, ctypes.c_void_p)
    def note(info, size, data):
        names.append((info.contents.name or b"").decode(errors="replace"))
        return 0

    iterate(note, None)
    return names


def refuse_shadowed_zlib() -> None:
    """Raises an error if Paddle 2 was imported before zlib in this process.

    Raises:
        ImportError: says which import must come first.
    """
    paddle = sys.modules.get("paddle")
    if not str(getattr(paddle, "__version__", "")).startswith("2."):
        return
    names = [name.rsplit("/", 1)[-1] for name in _loaded_libraries()]
    paddle_at = next((i for i, name in enumerate(names) if name.startswith("libpaddle")), None)
    zlib_at = next((i for i, name in enumerate(names) if name.startswith("libz.so")), None)
    if paddle_at is not None and zlib_at is not None and paddle_at < zlib_at:
        raise ImportError(
            f"Paddle {paddle.__version__} was imported before zlib, and its built-in zlib 1.2.8 would crash this process: "
            "put `import paddle_dnl` (or `import zlib`) before `import paddle`"
        )


def explain(error: ImportError) -> str | None:
    """Returns what to install if a system library is missing; None for other errors."""
    text = str(error)
    needed = {
        "libGL": "libgl1", "libgthread": "libglib2.0-0", "libglib": "libglib2.0-0", "libgomp": "libgomp1",
    }  # fmt: skip
    if not any(library in text for library in needed):
        return None
    return f"{text}: install the system packages libgl1 libglib2.0-0 libgomp1 (apt-get install ...), or run `make venv`"
