"""Watches one process of a distributed run from outside, so that the end of any process ends all of them and is explained.

A process whose partner dies is ended by its communication library (gloo aborts it with a C++ stack, NCCL lets it wait),
so it cannot tell what happened. This program can: each training process starts one, and holds the other end of its
standard input. What it reads there, `done`, `failed TEXT` or just the end of the file, is how the process ended; an
unfinished end is noted in a folder that the watchers of one machine share, and each prints one line that names the rank
that ended first. A process that then does not end by itself is asked to (SIGTERM), and killed after a time of grace.

Only the standard library is used, and neither training code nor Paddle is loaded.
"""

import contextlib
import json
import os
import select
import shutil
import signal
import sys
import time
from pathlib import Path

POLL_SECONDS = 0.1
SETTLE_SECONDS = 0.5  # in which the note of the process that caused an end arrives
GRACE_SECONDS = 20.0  # a checkpoint in the making is finished


def note_end(folder: Path, rank: int, pid: int, text: str) -> None:
    """Leaves a note for the watchers of the other processes."""
    temporary = folder / f".{rank}"
    with contextlib.suppress(OSError):
        temporary.write_text(json.dumps({"rank": rank, "pid": pid, "text": text, "at": time.time()}))
        temporary.rename(folder / f"rank_{rank}")


def first_end(folder: Path) -> dict | None:
    """The note of the process that ended first."""
    notes = []
    for path in folder.glob("rank_*"):
        with contextlib.suppress(OSError, ValueError):
            notes.append(json.loads(path.read_text()))
    return min(notes, key=lambda note: note["at"], default=None)


def explain(first: dict, rank: int, own_text: str) -> str | None:
    """The line for this rank's log; None where it has said everything itself."""
    if first["rank"] == rank:
        if first["text"]:
            return None
        return f"this process ({first['pid']}) ended without a message, as when it is killed or memory runs out"
    if first["text"] and first["text"] == own_text:
        return None
    how = f"failed: {first['text']}" if first["text"] else "ended without a message, as when it is killed"
    return f"rank {first['rank']} (process {first['pid']}) {how}. All ranks end; --resume_model auto goes on"


class _Pipe:
    """Lines of the watched process; `None` at the end of the file."""

    def __init__(self, handle: int):
        self.handle, self.rest = handle, b""

    def read(self, seconds: float) -> list[str | None]:
        if not select.select([self.handle], [], [], seconds)[0]:
            return []
        data = os.read(self.handle, 1 << 16)
        if not data:
            return [None]
        *lines, self.rest = (self.rest + data).split(b"\n")
        return [line.decode("utf-8", "replace") for line in lines]


def _settled(folder: Path, rank: int) -> dict | None:
    """The note of the process that ended first, as soon as it is another one's."""
    until = time.monotonic() + SETTLE_SECONDS
    while True:
        first = first_end(folder)
        if time.monotonic() > until or (first is not None and first["rank"] != rank):
            return first
        time.sleep(POLL_SECONDS / 5)


def _make_end(pid: int, pipe: _Pipe) -> None:
    """Ends the watched process, gently first."""
    for number, seconds in ((signal.SIGTERM, GRACE_SECONDS), (signal.SIGKILL, SETTLE_SECONDS)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if None in pipe.read(left):
                return


def watch(folder: Path, rank: int, pid: int, owner: bool) -> None:
    """Waits for the end of the watched process or of another one.

    Args:
        folder: of the notes.
        rank, pid: of the watched process.
        owner: whether to remove the folder at the end.
    """
    pipe, own_text, ended, first = _Pipe(sys.stdin.fileno()), "", False, None
    while not ended and first is None:
        for line in pipe.read(POLL_SECONDS):
            if line == "done":
                ended = True
            elif line is None:
                note_end(folder, rank, pid, own_text)
                ended, first = True, _settled(folder, rank)
            else:
                own_text = line.removeprefix("failed ")
        if not ended:
            first = first_end(folder)
    if first is not None:
        text = explain(first, rank, own_text)
        if text:
            print(f"Error (rank {rank}): {text}", file=sys.stderr, flush=True)
        if not ended:
            _make_end(pid, pipe)
        if owner:
            time.sleep(4 * SETTLE_SECONDS)  # until all have read it
    if owner:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    # The launcher signals whole process groups; this program ends when its process does.
    for name in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)
    watch(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "owner")
