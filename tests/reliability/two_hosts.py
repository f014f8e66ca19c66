# SPDX-License-Identifier: Apache-2.0
"""Two machines on one: network namespaces with a veth pair, each with a hostname, /etc/hosts and mounts of its own."""

import contextlib
import os
import shutil
import subprocess
import unittest
from collections.abc import Iterator
from pathlib import Path

from launching import Started

MASTER_PORT = 29517  # free in any new namespace


class TwoHosts:
    """The hosts 0 and 1, `node0` 10.77.0.1 and `node1` 10.77.0.2.

    Args:
        folder: for logs and files of the hosts.
    """

    def __init__(self, folder: Path):
        self.folder, self.name = folder, f"pdnl{os.getpid()}"
        self.addresses = ("10.77.0.1", "10.77.0.2")

    def namespace(self, host: int) -> str:
        """The network namespace of a host."""
        return f"{self.name}_{host}"

    def __enter__(self):
        hosts = self.folder / "hosts"
        hosts.write_text("127.0.0.1 localhost\n" + "".join(f"{a} node{i}\n" for i, a in enumerate(self.addresses)))
        links = [f"v{os.getpid()}_{host}" for host in (0, 1)]
        for host in (0, 1):
            self.ip("netns", "add", self.namespace(host))
        self.ip("link", "add", links[0], "type", "veth", "peer", "name", links[1])
        for host, address in enumerate(self.addresses):
            self.ip("link", "set", links[host], "netns", self.namespace(host), "name", "eth0")
            self.inside(host, "addr", "add", f"{address}/24", "dev", "eth0")
            self.inside(host, "link", "set", "lo", "up")
            self.inside(host, "link", "set", "eth0", "up")
        return self

    def __exit__(self, *_):
        for host in (0, 1):
            subprocess.run(["ip", "netns", "del", self.namespace(host)], check=False)

    @staticmethod
    def ip(*words: str) -> None:
        """Runs the command of iproute2."""
        subprocess.run(["ip", *words], check=True)

    def inside(self, host: int, *words: str) -> None:
        """The same in the namespace of a host."""
        self.ip("-n", self.namespace(host), *words)

    def cut(self) -> None:
        """The cable is pulled."""
        self.inside(0, "link", "set", "eth0", "down")

    def prefix(self, host: int, hidden: Path | None = None) -> list[str]:
        """What comes before a command to run it on a host; `hidden` is a folder that is another, empty one there."""
        script = f"hostname node{host}; mount --bind {self.folder / 'hosts'} /etc/hosts; "
        if hidden is not None:
            private = self.folder / f"private_{host}"
            private.mkdir(exist_ok=True)
            script += f"mount --bind {private} {hidden}; "
        enter = ["ip", "netns", "exec", self.namespace(host), "unshare", "--uts", "--mount", "sh", "-c"]
        return [*enter, script + 'exec "$@"', "sh"]

    def start(self, host: int, program: str, words, *, ranks: int = 1, hidden=None, environment=None) -> Started:
        """Starts a node of a launch on a host."""
        launch = ["--nnodes", "2", "--master", f"{self.addresses[0]}:{MASTER_PORT}", "--rank", str(host)]
        return Started(
            program,
            words,
            self.folder,
            ranks=ranks,
            launch=launch,
            prefix=self.prefix(host, hidden),
            logs=self.folder / f"log_{host}",
            environment=environment,
        )


@contextlib.contextmanager
def two_hosts(folder: Path) -> Iterator[TwoHosts]:
    """The hosts, while the context lasts.

    Raises:
        unittest.SkipTest: namespaces cannot be made here.
    """
    if shutil.which("ip") is None or shutil.which("unshare") is None or os.geteuid() != 0:
        raise unittest.SkipTest("needs root, iproute2 (ip netns) and util-linux (unshare)")
    probe = subprocess.run(["unshare", "--net", "--uts", "--mount", "true"], capture_output=True, check=False)
    if probe.returncode:
        raise unittest.SkipTest("this machine does not allow network namespaces")
    with TwoHosts(folder) as hosts:
        yield hosts
