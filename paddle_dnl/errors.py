# SPDX-License-Identifier: Apache-2.0
"""Errors that the command line shows as one line, without a traceback.

Everything that a user can cause (a wrong path, key, value or file) is raised as one of these, with one line that names the
thing and says what to do. The command line prints that line and ends with `exit_status`; any other exception is a
defect of the program and keeps its traceback.
"""

import difflib
import traceback


class PaddleDnlError(Exception):
    """Base of all errors that are shown without a traceback."""

    exit_status = 1


class UsageError(PaddleDnlError):
    """The command line itself is wrong, for instance a required flag is missing."""

    exit_status = 2


class ConfigError(PaddleDnlError):
    """A configuration file, key or value is wrong."""


class DataError(PaddleDnlError):
    """A dataset, list file, image or label cannot be used."""


class CheckpointError(PaddleDnlError):
    """Weights or a training state cannot be read, written or fitted to the model."""


class ExportError(PaddleDnlError):
    """A model cannot be exported, or the exported model differs from the trained one."""


class DownloadError(PaddleDnlError):
    """A file that a configuration names by URL could not be fetched or failed its check."""


class NonFiniteError(PaddleDnlError):
    """The loss, a gradient or a weight became NaN or infinite during training."""


class OutputError(PaddleDnlError):
    """An output would overwrite an input, or a file that no program of this project wrote."""


class DistributedError(PaddleDnlError):
    """The processes of a run cannot connect, have different settings or software, or one of them does not answer."""


def sendable(error: PaddleDnlError) -> tuple[str, str]:
    """What another process makes the error of again, with `revived`: the nearest of these classes by name, and the text."""
    kind = next(kind for kind in type(error).__mro__ if kind.__module__ == __name__)
    return kind.__name__, str(error)


def revived(kind: str, text: str) -> PaddleDnlError:
    """The error that `sendable` described."""
    return globals()[kind](text)


# Modules through which a command line of this package ends with --help or wrong flags.
_PARSERS = ("argparse", "_sitebuiltins", "pydantic_settings", "typing")


def exit_of_component(error: SystemExit, program: str = "") -> str | None:
    """Where a component ended the program, such as `exit(1) in net.py, line 7`.

    Args:
        error: the exception of the call of `exit()`.
        program: module of the program that runs, if it is not in this package.

    Returns:
        None if this package, `program` or the command-line parser of either called it.
    """
    owners = (__package__, program)
    frames = [(frame, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    while frames and frames[-1][0].f_globals.get("__name__", "").split(".")[0] in _PARSERS:
        frames.pop()
    if not frames or frames[-1][0].f_globals.get("__name__", "").split(".")[0] in owners:
        return None
    frame, line = frames[-1]
    return f"exit({'' if error.code is None else error.code!r}) in {frame.f_code.co_filename}, line {line}"


def describe(error: BaseException) -> str:
    """`TypeError: text`; for a component that ended the program, the call of `exit()` and its place."""
    place = exit_of_component(error) if isinstance(error, SystemExit) else None
    return f"it ended the program: {place}" if place else f"{type(error).__name__}: {error}"


def nearest(name: str, options) -> str:
    """` Did you mean 'X'?` or, where nothing is close, an empty string."""
    options = list(options)
    same = [option for option in options if option.lower() == str(name).lower()]
    close = same or difflib.get_close_matches(str(name), options, n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""
