# SPDX-License-Identifier: Apache-2.0
"""Child processes that end with their parent, leave signals to it, and are killed after a time limit or at exit.

Programs of this project run other ones, for example in the quick start, with `running_program`.

At exit Python waits for daemon processes that ignore SIGTERM, and a process that is busy in native code notices neither
a closed connection nor a Python signal handler: only SIGKILL ends it.
"""

import atexit
import contextlib
import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from paddle_dnl.startup import termination

# Seconds from SIGTERM to SIGKILL; a training saves a checkpoint in this time.
_SECONDS_TO_END = 60
# Seconds from a closed connection to the end of the process.
_SECONDS_TO_STOP = 5

# Linux sends the parent-death signal when the *thread* that started the child ends. This thread lives as long as the
# process.
_starter = ThreadPoolExecutor(1, thread_name_prefix="starts processes")


# Signals that a terminal or service manager sends to the whole process group; Windows has no signal masks.
_OF_THE_GROUP = {signal.SIGINT, signal.SIGTERM} if hasattr(signal, "pthread_sigmask") else set()


def start(process: BaseProcess) -> None:
    """Starts a process that calls `die_with` and `leave_signals_to_parent`, from a thread that does not end.

    The signals of `leave_signals_to_parent` are blocked from the start, because Python would print a traceback during
    its startup.
    """
    _starter.submit(_start, process).result()


def _start(process: BaseProcess) -> None:
    if _OF_THE_GROUP:
        resource_tracker.ensure_running()  # its start unblocks the signals, so it must not be part of the process's start
        signal.pthread_sigmask(signal.SIG_BLOCK, _OF_THE_GROUP)  # the process inherits the mask of this thread
    process.start()


def start_connected(
    target: Callable[..., None], *arguments, name: str, daemon: bool = True
) -> tuple[BaseProcess, Connection]:
    """Starts a process that runs `target(connection, parent, *arguments)`, which calls `working_for(parent)`.

    It is a new interpreter, because a forked copy of a process with threads or a loaded Paddle can hang.

    Args:
        target: a function at module level.
        arguments: are pickled.
        name: of the process.
        daemon: whether Python ends the process at its exit; a daemon cannot start processes by multiprocessing.

    Returns:
        The process, and the connection to it, on which the end of the process is an end of file.
    """
    context = multiprocessing.get_context("spawn")
    connection, child_end = context.Pipe()
    process = context.Process(target=target, args=(child_end, os.getpid(), *arguments), name=name, daemon=daemon)
    start(process)
    child_end.close()  # as long as it is open here, the end of the process is no end of file
    return process, connection


_RUN_MODULE = """\
import runpy, sys
_, root, module, *arguments = sys.argv
if root not in sys.path:
    sys.path.insert(0, root)
sys.argv = [module, *arguments]
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


def module_command(module: str, *arguments: str) -> list[str]:
    """Returns a command line that runs a module of this copy of the package from any working directory.

    It does not use PYTHONPATH: for an installed package that is site-packages, where a file such as `typing.py`, which
    cityscapesscripts installs, would take precedence over the standard library.
    """
    root = str(Path(__file__).resolve().parents[2])
    return [sys.executable, "-c", _RUN_MODULE, root, module, *arguments]


def signal_on_parent_death(number: int) -> None:
    """Makes the kernel send signal `number` to this process when its parent ends; does nothing outside Linux."""
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, number, 0, 0, 0)


def die_with(parent: int) -> None:
    """Makes the kernel kill this process when its parent (process ID `parent`) ends; does nothing outside Linux."""
    signal_on_parent_death(signal.SIGKILL)
    if sys.platform == "linux" and os.getppid() != parent:  # the parent ended before that call
        os._exit(1)


def leave_signals_to_parent() -> None:
    """Ignores SIGINT and SIGTERM, which reach the whole process group, because the parent ends this process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if _OF_THE_GROUP:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _OF_THE_GROUP)


def how_it_ended(process: BaseProcess) -> str:
    """Returns how a process that has closed its connection ended: `by signal 9` or `with status 1`."""
    process.join(_SECONDS_TO_STOP)
    code = process.exitcode
    return f"by signal {-code}" if code is not None and code < 0 else f"with status {code}"


@contextlib.contextmanager
def working_for(parent: int) -> Iterator[None]:
    """Context for the main function of a child process that talks to its parent through a connection.

    The process ends with its parent and leaves signals to it. An answer to a parent that has closed the connection ends
    the block without a traceback.

    Args:
        parent: process ID.
    """
    die_with(parent)
    leave_signals_to_parent()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        yield


@contextlib.contextmanager
def running_program(command: list[str], **options) -> Iterator[subprocess.Popen]:
    """Starts a program of this project; at the end of the block it gets SIGTERM if it still runs, and later SIGKILL.

    Only this process reports a signal that asks both to end, and the program does not outlive this process: the
    program's `termination.install` ensures both.

    Args:
        command: words of the command line.
        options: options of `subprocess.Popen`; a variable is added to `env`.
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
    """Kills `process` if the block takes longer than `seconds`, which ends every wait for the process.

    Args:
        process: a started process.
        seconds: time limit; None: no limit.

    Yields:
        An event that is set when the process has been killed.
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
    """Calls `end(*arguments)` when `owner` is garbage-collected, or before Python waits for processes at exit.

    A fork of this process does not call it, because the resources belong to this process.

    Args:
        owner: must not be referenced by `arguments`.
        end: called once.
    """
    registered = os.getpid()

    def end_here() -> None:
        if os.getpid() == registered:
            end(*arguments)

    atexit.register(weakref.finalize(owner, end_here))
