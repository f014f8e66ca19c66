# SPDX-License-Identifier: Apache-2.0
"""Runs the `main` of a program: sets up the process, reports errors in one line, and sets the exit status."""

import errno
import importlib
import os
import re
import signal
import sys
import traceback
import warnings

# Codes of errors that are caused by the state of the machine, not by a bug.
_OF_THE_MACHINE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EMFILE, errno.ENFILE, errno.ENOMEM)


def run(module: str, argv: list[str] | None = None) -> None:
    """Imports `module`, runs its `main(argv)` and exits with its status.

    The exit status is 0 for success, 2 for wrong flags and 1 for other failures. A failure that the user can correct is
    reported in one line on stderr.

    Under `paddle.distributed.launch`, the module's `UNDER_LAUNCH` says what a rank does: `group`: all ranks work and
    end together; `share`: each rank processes its share of the pictures (`data/images/pending_images.py`); by default
    rank 0 does all the work and the others exit.
    """
    # Paddle's warnings for developers of operators and layers.
    for message in ("No ccache found", "When training, we now always track global mean"):
        warnings.filterwarnings("ignore", message=message)
    _open_streams()
    from paddle_dnl.startup import termination

    try:
        termination.install()
        status = _status_of(module, argv)
    except KeyboardInterrupt:
        status = _fail("", 1, termination.seen() or signal.SIGINT)  # Paddle's tracing converts the exception
    termination.uninstall()
    _end_in_group(status or 0)
    sys.exit(status)


def _status_of(module: str, argv: list[str] | None) -> int:
    """Runs a program and returns its exit status; reports every exception except those of signals."""
    from paddle_dnl import optional
    from paddle_dnl.errors import PaddleDnlError, exit_of_component
    from paddle_dnl.files.caches import provide_home
    from paddle_dnl.files.problems import reason
    from paddle_dnl.startup import configure_process, import_guard, termination

    configure_process()
    provide_home()
    try:
        program = importlib.import_module(module)
        status = program.main(argv) if _has_work(getattr(program, "UNDER_LAUNCH", "rank 0")) else 0
        sys.stdout.flush()
    except PaddleDnlError as error:
        status = _fail(str(error), error.exit_status)
    except ImportError as error:
        explained = import_guard.explain(error) or optional.explain(error)
        if explained is None and termination.seen() is None:
            traceback.print_exc()
        status = _fail(explained or str(error), 1)
    except BrokenPipeError:
        _close_output()
        status = 0
    except OSError as error:
        if error.filename is not None:
            path = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else str(error.filename)
            status = _fail(f"{path}: {reason(error, path)}", 1)
        elif error.errno in _OF_THE_MACHINE:
            status = _fail(f"output: {error.strerror}", 1)
        else:
            status = _defect(error)
    except MemoryError:
        given = sys.argv[1:] if argv is None else argv
        less = "a smaller --crop_size" if "--is_slide" in given else "sliding evaluation (--is_slide)"
        status = _fail(f"out of memory; use a smaller --batch_size or {less}", 1)
    except SystemExit as error:
        place = exit_of_component(error, module)
        if place is None:  # argparse: --help, or wrong flags
            write_out("")
            raise
        status = _fail(f"a component ended the program: {place}", 1)
    except Exception as error:
        # An error caused by the end of another rank, which the watchdog has reported.
        watch = sys.modules.get("paddle_dnl.distributed.watch")
        text = str(error).lower()
        if watch is not None and any(word in text for word in watch.COMMUNICATION) and watch.others_ended(seconds=5):
            _end_in_group(1)
        # Before Python 3.13 `Path.resolve` raises RuntimeError instead of OSError for a loop of links.
        link = (
            re.match(r"Symlink loop from '(.*)'$", str(error), re.DOTALL) if isinstance(error, RuntimeError) else None
        )
        status = _fail(f"{link[1]}: {os.strerror(errno.ELOOP)}", 1) if link else _defect(error)
    return status


def write_out(text: str) -> None:
    """Writes to stdout and flushes; ignores a closed pipe, as with `head`."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        _close_output()


def _close_output() -> None:
    """Redirects stdout to the null device after a broken pipe, so that the flush at exit does not fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _has_work(under_launch: str) -> bool:
    """Sets up this rank according to `UNDER_LAUNCH`; returns whether this process has work to do."""
    rank = os.environ.get("PADDLE_TRAINER_ID", "0")
    if not _in_group():
        return True
    from paddle_dnl.distributed import launched

    launched.require_sound()  # before Paddle is imported, which reads the same variables
    if under_launch == "group":  # first, so that all later errors are reported to the other ranks
        from paddle_dnl.distributed import collectives

        collectives.initialise()
    elif under_launch == "share":  # each rank logs about its own pictures
        from paddle_dnl.log import choose_ranks

        choose_ranks([int(rank)])
    return under_launch in ("group", "share") or rank == "0"


def _open_streams() -> None:
    """Opens standard streams that are closed on the null device, before other files get their descriptors.

    Streams write characters that they cannot encode as escape sequences.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free descriptor
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
        elif hasattr(getattr(sys, name), "reconfigure"):
            getattr(sys, name).reconfigure(errors="backslashreplace")


def _defect(error: Exception) -> int:
    """Reports a bug of the program with its traceback; returns the exit status."""
    from paddle_dnl.startup import termination

    if termination.seen() is not None:
        return _fail("", 1)
    traceback.print_exc()
    _tell_other_ranks(f"{type(error).__name__}: {error}")
    return 1


def _end_in_group(status: int) -> None:
    """Ends a rank immediately, without cleanup that may wait for others; the launcher then ends the other ranks."""
    sys.stdout.flush()
    if _in_group():
        sys.stderr.flush()
        os._exit(status)


def _in_group() -> bool:
    return os.environ.get("PADDLE_TRAINERS_NUM", "1") != "1"


def _fail(text: str, status: int, number: int | None = None) -> int:
    """Prints the error in one line and returns the exit status.

    Args:
        text: error message.
        status: exit status.
        number: number of the signal that ended the program; determines text and status.
    """
    watch = sys.modules.get("paddle_dnl.distributed.watch")
    if watch is not None and watch.others_ended():
        return status  # the watchdog has reported which rank ended first
    from paddle_dnl.log import printable
    from paddle_dnl.startup import termination

    number = number or termination.seen()  # a library may have replaced the signal's exception
    if number is not None:
        text, status = termination.describe(number)
        if termination.parent_reports():
            return status
    if os.environ.get("PADDLE_DNL_TRACEBACK"):
        traceback.print_exc()
    rank = os.environ.get("PADDLE_TRAINER_ID")
    where = f" (rank {rank})" if rank is not None and _in_group() else ""
    print(f"Error{where}: {printable(text)}", file=sys.stderr, flush=True)
    _tell_other_ranks(text)
    return status


def _tell_other_ranks(text: str) -> None:
    """Reports the failure to the watchdog; before the watchdog runs, only the launcher detects failures."""
    watch = sys.modules.get("paddle_dnl.distributed.watch")
    if watch is not None:
        watch.report_failure(text)
