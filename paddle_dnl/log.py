# SPDX-License-Identifier: Apache-2.0
"""One logger for the whole package, in the line format that PaddleSeg users and TIPC scripts read.

[2024/01/01 00:00:00] INFO: [TRAIN] epoch: 1, iter: 10/80000, loss: 1.2345, ...
"""

import logging
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Collection

from tqdm import tqdm

# C0 but for tab and line feed, DEL, C1, line separators, marks that turn the direction of text, lone surrogates.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
# A line of a file name that would look like one of ours.
_FORGED = re.compile(r"\n(?=\[|Error\b|Traceback\b)")


def _escape(match: re.Match) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a name that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def printable(text: str) -> str:
    """`text` for a log or a terminal: control characters, which file names may hold, as escapes.

    Line breaks stay, and no later line begins like a log line or an error.
    """
    return _FORGED.sub("\n  ", _CONTROL.sub(_escape, text))


class _StdoutHandler(logging.Handler):
    """Writes to the current stdout, above a tqdm progress bar when one is on the screen."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            tqdm.write(self.format(record), file=sys.stdout)
            sys.stdout.flush()
        except OSError:  # a full disk or a closed pipe: the work goes on, and `cli._run` reports it at the end
            pass
        except Exception:
            self.handleError(record)


class _Formatter(logging.Formatter):
    """Lines without control characters, whatever names of files are in them."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


_ranks = {0}


def choose_ranks(ranks: Collection[int]) -> None:
    """Sets the ranks that write log lines; the others write errors only. At first it is rank 0."""
    _ranks.clear()
    _ranks.update(ranks)


def _chosen_ranks_only(record: logging.LogRecord) -> bool:
    """Lines of several ranks would be doubled; errors are written by all."""
    rank = os.environ.get("PADDLE_TRAINER_ID", "0")  # `distributed/launched.py` refuses what is no number
    return record.levelno >= logging.ERROR or rank.isdecimal() and int(rank) in _ranks


logger = logging.getLogger("paddle_dnl")
if not logger.handlers:
    _handler = _StdoutHandler()
    _handler.setFormatter(_Formatter("[%(asctime)s] %(levelname)s: %(message)s", "%Y/%m/%d %H:%M:%S"))
    _handler.addFilter(_chosen_ranks_only)
    logger.addHandler(_handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False

_LINE_SECONDS = 30.0


def progress(iterable, description: str, total: int | None = None, reached: Callable[[], int] | None = None):
    """`iterable` with a tqdm bar on a terminal; into a file, a log line every 30 seconds with the time that is left.

    Args:
        iterable: what is gone through.
        description: the work, for the lines.
        total: of the work; by default the length of `iterable`.
        reached: asked before each item how much of `total` is done; by default the number of items before it.
    """
    if total is None and hasattr(iterable, "__len__"):
        total = len(iterable)
    if sys.stderr.isatty():
        return _progress_bar(iterable, description, total, reached)
    return _progress_lines(iterable, description, total, reached)


def _progress_bar(iterable, description: str, total: int | None, reached: Callable[[], int] | None):
    """A tqdm bar that shows what `reached` says."""
    with tqdm(desc=description, total=total, leave=False) as bar:
        for done, item in enumerate(iterable):
            bar.update((reached() if reached else done) - bar.n)
            yield item


def _progress_lines(iterable, description: str, total: int | None, reached: Callable[[], int] | None):
    """From a thread, so that lines come also while one item takes minutes."""
    began, counted, ended = time.monotonic(), [0], threading.Event()

    def say() -> None:
        while not ended.wait(_LINE_SECONDS):
            done, seconds = counted[0], time.monotonic() - began
            rest = f", about {seconds * (total - done) / done:.0f} s left" if total and done else ""
            logger.info(f"{description}: {done}{f' of {total}' if total else ''} in {seconds:.0f} s{rest}")

    threading.Thread(target=say, name=f"progress of {description}", daemon=True).start()
    try:
        for done, item in enumerate(iterable):
            counted[0] = reached() if reached else done
            yield item
    finally:
        ended.set()
