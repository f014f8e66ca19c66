# SPDX-License-Identifier: Apache-2.0
"""Messages about processes, and the choice of the rank that caused the end of a run."""

import contextlib
import json
import os
import signal
import socket
import time

BEAT_SECONDS = 1.0
SETTLE_SECONDS = 0.8  # from the first end to the verdict: the report of the process that caused it may arrive later
GRACE_SECONDS = 20.0  # from SIGTERM to SIGKILL, for a checkpoint that is being written
LOST_SECONDS = float(os.environ.get("PADDLE_DNL_LOST_SECONDS", "60"))  # without a message: the machine counts as lost
QUIET_SECONDS = 5 * BEAT_SECONDS  # without a message: explains why other ranks gave up
KILLED = "and its watchdog ended at once, as when a machine or container is stopped"


class Lines:
    """Reads lines from a file descriptor without blocking; `None` stands for the end of the file."""

    def __init__(self, handle: int):
        self.handle, self.rest, self.ended = handle, b"", False

    def read(self) -> list[str | None]:
        try:
            data = os.read(self.handle, 1 << 16)
        except BlockingIOError:
            return []
        except OSError:
            data = b""
        if not data:
            self.ended = True
            return [None]
        *lines, self.rest = (self.rest + data).split(b"\n")
        return [line.decode("utf-8", "replace") for line in lines]


def send(connection: socket.socket | None, message: dict) -> bool:
    """Sends a message as one line of JSON; False if the connection is missing or broken."""
    if connection is None:
        return False
    try:
        connection.sendall(json.dumps(message).encode() + b"\n")
        return True
    except OSError:
        return False


def process_state(pid: int) -> tuple[str, int | None]:
    """State letter of a process as in /proc (T: stopped, Z: ended), and the signal that ended it, if known."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        state, code = fields[0].decode(), int(fields[-1])
    except (OSError, ValueError, IndexError):
        return "?", None
    return state, code & 0x7F if state == "Z" else None


def killed_by(pid: int) -> int | None:
    """The signal that ended a process, known until its parent has collected its status; call it after the end of its pipe."""
    until = time.monotonic() + SETTLE_SECONDS / 4
    while (found := process_state(pid))[0] not in "Z?X" and time.monotonic() < until:
        time.sleep(0.002)
    return found[1]


# Words in errors that are only a consequence of another process's end.
COMMUNICATION = ("gloo", "nccl", "tcp receive", "tcp send", "connect", "broken pipe")


def report(rank: int, text: str, signal_number: int | None = None) -> dict:
    """How a rank ended.

    Args:
        rank: rank of the process.
        text: its own message.
        signal_number: the signal that ended it, None if unknown.

    Returns:
        `rank`, `text`, `how` (text that follows the rank's name in the log line), `follows` (whether its end is only a
        consequence of another one's).
    """
    follows = any(word in text.lower() for word in COMMUNICATION) or (not text and signal_number == signal.SIGABRT)
    how = f"failed: {text}" if text else "ended without a message, as when it is killed or memory runs out"
    if signal_number and not text:
        with contextlib.suppress(ValueError):
            how = f"ended without a message, by {signal.Signals(signal_number).name}"
            how += ", as when memory runs out" if signal_number == signal.SIGKILL else ""
    return {"rank": rank, "text": text, "how": how, "follows": follows}


def silence(seconds: float) -> str:
    """`how` of a rank that sends nothing any more."""
    return f"was not heard of for {seconds:.0f} s: its machine, its container or the network is lost"


def cause(ends: list[dict], members: dict[int, dict], now: float) -> dict:
    """The report of the rank that caused the end of all.

    A process that was aborted by its communication library, or reports an error of it, is not the cause. If all are such, the
    cause is a rank that is stopped, silent or behind the others.

    Args:
        ends: reports in the order of arrival.
        members: by rank: `state`, `count`, `at`, `heard`; see `watchdog/__init__.py`.
        now: current time on the clock of `heard`.
    """
    for end in ends:
        if not end["follows"]:
            return end
    ended = {end["rank"] for end in ends}
    others = {rank: member for rank, member in sorted(members.items()) if rank not in ended}
    for rank, member in others.items():
        if member["state"] == "T":
            return {**report(rank, ""), "how": "is stopped (SIGSTOP), and the others gave up waiting for it"}
        if now - member["heard"] > QUIET_SECONDS:
            return {**report(rank, ""), "how": silence(now - member["heard"])}
    last = min(others, key=lambda rank: others[rank]["count"], default=None)
    if last is not None and others[last]["count"] < max(member["count"] for member in members.values()):
        how = f"did not get past {others[last]['at']}, and the others gave up waiting for it"
        return {**report(last, ""), "how": how}
    return ends[0]
