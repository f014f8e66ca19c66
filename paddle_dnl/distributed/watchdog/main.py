# SPDX-License-Identifier: Apache-2.0
"""The watchdog of one rank; `distributed/watch.py` starts it in isolated mode with only the folder above added to `sys.path`."""

import contextlib
import json
import os
import selectors
import signal
import socket
import sys
import time

from .hub import Hub
from .reports import (
    BEAT_SECONDS,
    GRACE_SECONDS,
    KILLED,
    LOST_SECONDS,
    QUIET_SECONDS,
    SETTLE_SECONDS,
    Lines,
    killed_by,
    process_state,
    report,
    send,
    silence,
)

CONNECT_SECONDS = 60.0


class Watchdog:
    """Watches the process of a rank and reports to the hub.

    Args:
        rank, pid, host: rank, process ID and machine of the process.
        address: host and port of the hub.
        token: see `Hub`.
    """

    def __init__(self, rank: int, pid: int, host: str, address: tuple[str, int], token: str):
        self.rank, self.pid, self.host, self.address, self.token = rank, pid, host, address, token
        self.process = Lines(sys.stdin.fileno())
        self.text, self.count, self.at = "", 0, "starting"
        self.hub: socket.socket | None = None
        self.hub_lines: Lines | None = None
        self.heard = time.monotonic()
        self.end: dict | None = None  # report of the watched process
        self.verdict: dict | None = None  # which rank ended first, and how
        self.deadline: float | None = None  # after which this watchdog decides itself, when the hub is silent
        self.hub_said_bye = False

    def connect(self) -> None:
        """Joins the hub.

        Raises:
            OSError: it cannot be reached.
        """
        self.hub = socket.create_connection(self.address, CONNECT_SECONDS)
        self.hub.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.hub.settimeout(5)
        self.hub_lines = Lines(self.hub.fileno())
        send(self.hub, {"token": self.token, "rank": self.rank, "host": self.host, "pid": self.pid})

    def watch(self) -> bool:
        """Waits for the end of the process, or for the hub's report that another one has ended.

        Returns:
            Whether the process may end normally.
        """
        beat = 0.0
        while self.verdict is None:
            with selectors.DefaultSelector() as selector:
                for lines in (self.process, self.hub_lines):
                    if lines is not None and not lines.ended:
                        selector.register(lines.handle, selectors.EVENT_READ, lines)
                ready = [key.data for key, _ in selector.select(BEAT_SECONDS / 5)]
            if self.process in ready and self._from_process():
                send(self.hub, {"done": True, "state": "done"})
                return True
            if self.hub_lines in ready:
                for line in self.hub_lines.read():
                    self.heard = time.monotonic()
                    message = json.loads(line) if line is not None else {}
                    self.hub_said_bye = self.hub_said_bye or "bye" in message
                    self.verdict = message.get("verdict", self.verdict)
                    if line is None and not self.hub_said_bye and self.deadline is None:
                        self.deadline = self.heard + SETTLE_SECONDS
            now = time.monotonic()
            if now - beat > BEAT_SECONDS:
                beat = now
                send(self.hub, {"state": process_state(self.pid)[0], "count": self.count, "at": self.at})
            if self.verdict is None:
                self._without_hub(now)
        return False

    def _from_process(self) -> bool:
        """Reads messages of the process; True when it may end from here on."""
        for line in self.process.read():
            if line is None:
                self._report(report(self.rank, self.text, killed_by(self.pid)))
            elif line == "done":
                return True
            elif line.startswith("failed "):
                self.text = line.removeprefix("failed ")
                self._report(report(self.rank, self.text))
            elif line.startswith("at "):
                _, count, self.at = line.split(" ", 2)
                self.count = int(count)
        return False

    def _report(self, end: dict) -> None:
        self.end = self.end or end
        there = send(self.hub, {"end": end}) and not self.hub_lines.ended
        self.deadline = self.deadline or time.monotonic() + (4 if there else 1) * SETTLE_SECONDS

    def _without_hub(self, now: float) -> None:
        """Sets a verdict from this rank's own information, when the hub is lost."""
        silent = now - self.heard
        lost = self.hub is not None and not self.hub_said_bye and silent > LOST_SECONDS
        if not lost and (self.deadline is None or now < self.deadline):
            return
        if self.end is not None and (self.hub is None or not self.end["follows"]):
            self.verdict = {**self.end, "host": self.host, "pid": self.pid}
        else:
            how = silence(silent) if silent > QUIET_SECONDS else KILLED
            self.verdict = {**report(0, ""), "how": how, "host": self.address[0], "pid": 0}

    def explain(self) -> str | None:
        """The line for this rank's log; None if the process has printed the reason itself."""
        first = self.verdict
        if first["text"] and (first["rank"] == self.rank or first["text"] == self.text):
            return None
        who = f"rank {first['rank']} on {first['host']}" if first["rank"] != self.rank else "this process"
        number = f" ({'process ' if first['rank'] != self.rank else ''}{first['pid']})" if first["pid"] else ""
        # A failure with a message is likely to repeat on resuming.
        advice = "All ranks end" if first["text"] else "All ranks end; --resume_model auto continues"
        return f"{who}{number} {first['how']}. {advice}"

    def make_end(self) -> None:
        """Informs the process that all ranks end, and ends it: SIGTERM, then SIGKILL."""
        if self.process.ended:
            return
        with contextlib.suppress(OSError):
            os.write(sys.stdout.fileno(), b"ended\n")
        for number, seconds in ((signal.SIGTERM, GRACE_SECONDS), (signal.SIGKILL, SETTLE_SECONDS)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)
                os.kill(self.pid, signal.SIGCONT)  # a stopped process handles no other signal
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                with selectors.DefaultSelector() as selector:
                    selector.register(self.process.handle, selectors.EVENT_READ)
                    if selector.select(0.2) and None in self.process.read():
                        return


def main() -> None:
    """`watchdog.py RANK RANKS PID HOST HUB_HOST HUB_PORT HUB_SOCKET`; the last is a listening socket in rank 0, else -1."""
    rank, ranks, pid, host, hub_host, port, handle = sys.argv[1:8]
    token = sys.stdin.buffer.raw.read(32).decode()  # not among the arguments, which other users can read
    # The launcher signals whole process groups; this program ends when its process does.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    hub = None
    if int(handle) >= 0:
        hub = Hub(socket.socket(fileno=int(handle)), token, int(ranks))
        hub.start()
    watchdog = Watchdog(int(rank), int(pid), host, (hub_host, int(port)), token)
    try:
        watchdog.connect()
    except OSError as error:
        watchdog.hub = None
        print(
            f"Warning (rank {rank}): no connection to the watchdog of rank 0, {hub_host}:{port} ({error}); the end of a rank "
            "on another machine will not be explained here",
            file=sys.stderr,
            flush=True,
        )
    is_well = watchdog.watch()
    if not is_well:
        text = watchdog.explain()
        if text:
            print(f"Error (rank {rank}): {text}", file=sys.stderr, flush=True)
        watchdog.make_end()
    if hub is not None:
        hub.close(is_well)
