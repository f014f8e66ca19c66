# SPDX-License-Identifier: Apache-2.0
"""Hub to which the watchdogs of all ranks connect."""

import contextlib
import json
import selectors
import socket
import threading
import time

# Relative imports, since this package runs without its parent package: see main.py.
from .reports import (
    BEAT_SECONDS,
    GRACE_SECONDS,
    KILLED,
    LOST_SECONDS,
    QUIET_SECONDS,
    SETTLE_SECONDS,
    Lines,
    cause,
    report,
    send,
    silence,
)

LINGER_SECONDS = 10.0  # how long the hub serves the other ranks after its own process has ended


class Hub(threading.Thread):
    """Server in the watchdog of rank 0, to which all watchdogs connect.

    Args:
        server: listening socket.
        token: secret that members must send.
        ranks: expected number of members.
    """

    def __init__(self, server: socket.socket, token: str, ranks: int):
        super().__init__(daemon=True)
        self.server, self.token, self.ranks = server, token, ranks
        self.members: dict[int, dict] = {}
        self.ends: list[dict] = []
        self.decide_at: float | None = None
        self.verdict: dict | None = None
        self.selector = selectors.DefaultSelector()
        self.closing = threading.Event()

    def run(self) -> None:
        """Serves until it is closed."""
        self.server.setblocking(False)
        self.selector.register(self.server, selectors.EVENT_READ)
        beat = 0.0
        while not self.closing.is_set():
            for key, _ in self.selector.select(BEAT_SECONDS / 5):
                if key.fileobj is not self.server:
                    self._listen(key)
                    continue
                with contextlib.suppress(OSError):
                    connection, _ = self.server.accept()
                    connection.settimeout(5)
                    data = {"lines": Lines(connection.fileno()), "rank": None}
                    self.selector.register(connection, selectors.EVENT_READ, data)
            now = time.monotonic()
            if now - beat > BEAT_SECONDS:
                beat = now
                self._tell_all({"beat": 1})
            if self.verdict is None:
                for rank, member in self.members.items():
                    if not member["done"] and now - member["heard"] > LOST_SECONDS:
                        self._end({**report(rank, ""), "how": silence(now - member["heard"])})
                if self.decide_at is not None and now > self.decide_at:
                    known = {rank: member for rank, member in self.members.items() if not member["done"]}
                    found = cause(self.ends, known, now)
                    member = self.members.get(found["rank"], {"host": "?", "pid": 0})
                    self.verdict = {**found, "host": member["host"], "pid": member["pid"]}
                    self._tell_all({"verdict": self.verdict})

    def _listen(self, key) -> None:
        """Reads the messages of one connection; the first one must hold the token and makes it a member."""
        connection, data = key.fileobj, key.data
        for line in data["lines"].read():
            member = self.members.get(data["rank"])
            if line is None:
                self.selector.unregister(connection)
                connection.close()
                if member is not None and not member["done"] and data["rank"] not in {end["rank"] for end in self.ends}:
                    self._end({**report(data["rank"], ""), "how": KILLED})
                return
            with contextlib.suppress(ValueError, TypeError, KeyError):
                message = json.loads(line)
                if member is None:
                    if message["token"] != self.token:
                        raise ValueError
                    data["rank"] = message["rank"]
                    self.members[message["rank"]] = {
                        **{name: message[name] for name in ("rank", "host", "pid")},
                        **{"state": "?", "count": 0, "at": "starting", "done": False, "connection": connection},
                        "heard": time.monotonic(),
                    }
                    if self.verdict is not None:
                        send(connection, {"verdict": self.verdict})
                    continue
                member["heard"] = time.monotonic()
                member.update({name: message[name] for name in ("state", "count", "at", "done") if name in message})
                if "end" in message:
                    self._end(message["end"])

    def _end(self, end: dict) -> None:
        if any(end["rank"] == known["rank"] for known in self.ends):  # reported with its reason before
            return
        self.ends.append(end)
        if self.decide_at is None:
            self.decide_at = time.monotonic() + SETTLE_SECONDS

    def _tell_all(self, message: dict) -> None:
        for member in self.members.values():
            send(member["connection"], message)

    def close(self, is_well: bool) -> None:
        """Ends the service, after a wait for ranks that are not done yet, or for watchdogs that end their processes."""
        until = time.monotonic() + LINGER_SECONDS + (0 if is_well else GRACE_SECONDS)
        while time.monotonic() < until:
            members = dict(self.members)  # the hub's thread may add one
            if is_well:  # all have joined, late ones on busy machines too, and are done
                is_over = len(members) == self.ranks and all(member["done"] for member in members.values())
            else:  # no other rank is connected and has sent something recently
                is_over = not any(
                    rank and member["connection"].fileno() >= 0 and time.monotonic() - member["heard"] < QUIET_SECONDS
                    for rank, member in members.items()
                )
            if is_over:
                break
            time.sleep(BEAT_SECONDS / 5)
        self._tell_all({"bye": 1})
        self.closing.set()
        self.join(2)
