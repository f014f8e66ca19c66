# SPDX-License-Identifier: Apache-2.0
"""Child processes that end with their parent, leave signals to it, and are killed when late and when the program exits.

A program of this project that runs another one, such as the quick start, does so by `running_program`.

Python waits at its exit for daemon processes that ignore SIGTERM, and a process that is busy in native code notices neither a
closed connection nor a Python signal handler: only SIGKILL ends it.
"""

import atexit
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess
from pathlib import Path

from paddle_dnl.startup import termination

# From SIGTERM to SIGKILL; a training saves a checkpoint before it ends.
_SECONDS_TO_END = 60
# From a closed connection to the end of the process.
_SECONDS_TO_STOP = 5

# Linux sends the parent-death signal at the end of the *thread* that started the child. This thread lives as long as the process.
_starter = ThreadPoolExecutor(1, thread_name_prefix="starts processes")


# Signals for the whole process group; Windows has no signal masks.
_OF_THE_GROUP = {signal.SIGINT, signal.SIGTERM} if hasattr(signal, "pthread_sigmask") else set()


def start(process: BaseProcess) -> None:
    """Starts a process that calls `die_with` and `leave_signals_to_parent`, from a thread that does not end before this process.

    The signals of the second are blocked in it from its start, since Python would print a traceback while it starts.
    """
    _starter.submit(_start, process).result()


def _start(process: BaseProcess) -> None:
    if _OF_THE_GROUP:
        resource_tracker.ensure_running()  # whose start, otherwise a part of the process's, ends with unblocking them
        signal.pthread_sigmask(signal.SIG_BLOCK, _OF_THE_GROUP)  # of this thread, which the process inherits
    process.start()


_RUN_MODULE = """\
import runpy, sys
_, root, module, *arguments = sys.argv
if root not in sys.path:
    sys.path.insert(0, root)
sys.argv = [module, *arguments]
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


def module_command(module: str, *arguments: str) -> list[str]:
    """Command line that runs a module of this copy of the package in a new interpreter, from any working folder.

    PYTHONPATH is not used for it: the folder of an installed package is site-packages, and ahead of the standard library a
    file there such as `typing.py`, which cityscapesscripts installs, would replace Python's own.
    """
    root = str(Path(__file__).resolve().parents[2])
    return [sys.executable, "-c", _RUN_MODULE, root, module, *arguments]


def signal_on_parent_death(number: int) -> None:
    """Makes the kernel send this process the signal `number` when its parent ends; does nothing outside Linux."""
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, number, 0, 0, 0)


def die_with(parent: int) -> None:
    """Makes the kernel kill this process when its parent, of process ID `parent`, ends; does nothing outside Linux."""
    signal_on_parent_death(signal.SIGKILL)
    if sys.platform == "linux" and os.getppid() != parent:  # it ended before that call
        os._exit(1)


def leave_signals_to_parent() -> None:
    """Ignores Ctrl-C and a service manager's SIGTERM, which reach the whole process group: the parent ends this process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if _OF_THE_GROUP:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _OF_THE_GROUP)


def how_it_ended(process: BaseProcess) -> str:
    """How a process ended that has closed its connection: `by signal 9` or `with status 1`."""
    process.join(_SECONDS_TO_STOP)
    code = process.exitcode
    return f"by signal {-code}" if code is not None and code < 0 else f"with status {code}"


@contextlib.contextmanager
def running_program(command: list[str], **options) -> Iterator[subprocess.Popen]:
    """Starts a program of this project; if it still runs when the block ends, it gets SIGTERM and, if needed, SIGKILL.

    A signal that asks this process to end is reported by this process only, and the program does not outlive this process.
    `termination.install` in the program does both.

    Args:
        command: the words.
        options: of `subprocess.Popen`; a variable is added to `env`.
    """
    environment = options.pop("env", os.environ) | {termination.PARENT: str(os.getpid())}
    process = subprocess.Popen(command, env=environment, **options)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(_SECONDS_TO_END)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextlib.contextmanager
def killed_after(process: BaseProcess | subprocess.Popen, seconds: float | None) -> Iterator[threading.Event]:
    """Kills `process` when the block takes longer than `seconds`, which ends every wait for it.

    Args:
        process: a started process.
        seconds: None for no limit.

    Yields:
        An event that is set when the process was killed.
    """
    late = threading.Event()
    if seconds is None:
        yield late
        return

    def kill():
        late.set()
        process.kill()

    timer = threading.Timer(seconds, kill)
    timer.daemon = True
    timer.start()
    try:
        yield late
    finally:
        timer.cancel()


def at_end_of(owner: object, end: Callable[..., None], *arguments) -> None:
    """Calls `end(*arguments)` when `owner` is garbage-collected, at the latest at Python's exit before it waits for processes.

    A forked copy of this process does not call it: what it would end belongs to this one.

    Args:
        owner: must not be referenced by `arguments`.
    """
    registered = os.getpid()

    def end_here() -> None:
        if os.getpid() == registered:
            end(*arguments)

    atexit.register(weakref.finalize(owner, end_here))
