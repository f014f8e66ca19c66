# SPDX-License-Identifier: Apache-2.0
"""Converts the signals SIGTERM, SIGINT and SIGHUP to exceptions, so that `finally` blocks remove partial files.

When Paddle's library is loaded, it installs a handler for SIGTERM that prints a C++ stack trace and ends the process;
the handler is replaced after each import that may install it.
"""

import contextlib
import importlib.abc
import importlib.util
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator

_LIBRARIES = ("paddle", "cv2")
_PARTS = ("paddle.base.core", "paddle.base")  # Paddle's handlers are also replaced after these parts of its import
# A launcher repeats its signal within a second; a later repetition by the user ends the program immediately.
_REPEATED_SECONDS = 2.0
_AGAIN_SECONDS = 0.02
_TEXTS = {"SIGINT": "interrupted", "SIGTERM": "terminated (SIGTERM)", "SIGHUP": "the terminal is gone (SIGHUP)"}

# Variable with the ID of the process that started this one and reports signals for both, see
# `child_processes.running_program`.
PARENT = "PADDLE_DNL_PARENT"

_state: dict = {"signal": None, "at": 0.0, "owner": 0}


class Terminated(KeyboardInterrupt):
    """A signal has asked this program to end; `number` is its number."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


def seen() -> int | None:
    """Returns the number of the signal that has asked this process to end, or None."""
    return _state["signal"]


def parent_reports() -> bool:
    """Whether the program that started this one reports signals for both."""
    return os.environ.get(PARENT) == str(os.getppid())


def describe(number: int) -> tuple[str, int]:
    """Returns the text for a signal, and the exit status of a program that it ends: 128 plus its number."""
    return _TEXTS.get(signal.Signals(number).name, signal.Signals(number).name), 128 + number


def _end(number: int, frame) -> None:
    if os.getpid() != _state["owner"]:  # a forked process ends silently; its parent reports
        os._exit(128 + number)
    if _state["signal"] is None:
        _state.update(signal=number, at=time.monotonic())
        raise Terminated(number)
    if time.monotonic() - _state["at"] > _REPEATED_SECONDS:
        os._exit(128 + number)


def _send_again(unraisable) -> None:
    """Hook for `sys.unraisablehook`: repeats a signal whose exception was swallowed by a finalizer or callback."""
    if not isinstance(unraisable.exc_value, Terminated):
        sys.__unraisablehook__(unraisable)
        return
    number = unraisable.exc_value.number
    _state.update(signal=None)
    # Later and from another thread, because the exception must not be raised in this function.
    threading.Timer(_AGAIN_SECONDS, os.kill, (os.getpid(), number)).start()


def _numbers() -> list[int]:
    """Returns the signals that exist on this system and are not ignored; `nohup`, for example, ignores SIGHUP."""
    found = [getattr(signal, name) for name in _TEXTS if hasattr(signal, name)]
    return [number for number in found if signal.getsignal(number) is not signal.SIG_IGN]


@contextlib.contextmanager
def held_signals() -> Iterator[None]:
    """Delays signals during the block until its end; replaces handlers that native code installs in the block.

    For the import of libraries that install handlers, or would report the exception as a failure of their own. An
    exception that ends the block drops the delayed signals. Does nothing outside the main thread, because only that one
    handles signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []
    before = {number: signal.signal(number, lambda number, frame: held.append(number)) for number in _numbers()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
    if held:
        os.kill(os.getpid(), held[0])


class _Loader(importlib.abc.Loader):
    """Loads a module with its own loader, then restores the signal handlers that were set in Python.

    Signals are delayed during the whole import of Paddle or OpenCV, which would report the exception as a library that
    cannot be imported.
    """

    def __init__(self, loader):
        self._loader = loader

    def __getattr__(self, name: str):
        return getattr(self._loader, name)

    def create_module(self, spec):
        return self._loader.create_module(spec)

    def exec_module(self, module) -> None:
        with held_signals() if module.__name__ in _LIBRARIES else contextlib.nullcontext():
            self._loader.exec_module(module)
        if threading.current_thread() is threading.main_thread():
            for number in _numbers():
                if callable(handler := signal.getsignal(number)):
                    signal.signal(number, handler)


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name not in (*_LIBRARIES, *_PARTS):
            return None
        sys.meta_path.remove(self)
        try:
            spec = importlib.util.find_spec(name)
        finally:
            sys.meta_path.insert(0, self)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


def install() -> None:
    """Installs the handlers and keeps them installed when Paddle is imported; does nothing outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        return
    _state.update(signal=None, owner=os.getpid())
    sys.unraisablehook = _send_again
    for number in _numbers():
        signal.signal(number, _end)
    if parent_reports():
        from paddle_dnl.startup import child_processes

        child_processes.signal_on_parent_death(signal.SIGTERM)
        if not parent_reports():  # the parent ended before that call
            os.kill(os.getpid(), signal.SIGTERM)
    if "paddle" not in sys.modules and not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def uninstall() -> None:
    """Restores the default handlers before the exit; a signal then ends the process immediately."""
    if _state["owner"] == os.getpid() and threading.current_thread() is threading.main_thread():
        for number in _numbers():
            signal.signal(number, signal.SIG_DFL)
