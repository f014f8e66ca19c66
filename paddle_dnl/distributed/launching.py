# SPDX-License-Identifier: Apache-2.0
"""Checks before `paddle.distributed.launch`: flags that do not fit, an unreachable master, occupied ports.

The launcher itself waits forever (`--nnodes 2` without `--master`, a `--master` with a host name, a rank 0 that never starts)
or prints a line about a script called `gloo`. It finds the node that hosts the meeting point by comparing the text of addresses,
so `settle` gives it both addresses in numeric form.
"""

import importlib
import os
import re
import socket
import time
from dataclasses import dataclass

from paddle_dnl.addresses import is_loopback
from paddle_dnl.distributed.ports import opening_error, wait_seconds, wait_until_open
from paddle_dnl.errors import DistributedError, UsageError

ETCD = "etcd://"
# The generated code of etcd3 0.12.0 is too old for the other implementations of today's protobuf.
PROTOBUF = "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"
_NAME_SECONDS = 60.0  # time for a host name to become resolvable


@dataclass
class Nodes:
    """How many machines take part, where they meet, and which one this is.

    Args:
        low, high: smallest and largest number of machines; they differ for an elastic job.
        master: `HOST:PORT` of the first machine, or `etcd://HOST:PORT`; None for one machine.
        rank: of this machine, -1 where the launcher chooses.
        host: address of this machine for the others; None to find it out.
    """

    low: int
    high: int
    master: str | None
    rank: int
    host: str | None


def parse_nodes(nnodes: str, master: str | None, rank: int, host: str | None) -> Nodes:
    """Checks the flags of the same names, without network access.

    Raises:
        UsageError: they do not fit each other.
    """
    found = re.fullmatch(r"(\d+)(?::(\d+))?", nnodes)
    low, high = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not 1 <= low <= high:
        raise UsageError(f"--nnodes {nnodes}: expected a number of machines, or SMALLEST:LARGEST for an elastic job")
    if rank >= high or rank < -1:
        raise UsageError(f"--rank {rank}: machines are counted from 0, and there are {high} (--nnodes {nnodes})")
    if high > 1 and not master:
        raise UsageError(
            f"--nnodes {nnodes}: needs --master HOST:PORT, an address and a free port of the machine with --rank 0, the same "
            "on all machines"
        )
    if master and not re.fullmatch(r"(etcd://)?[^\s:/]+:\d{1,5}", master):
        raise UsageError(f"--master {master}: expected HOST:PORT or {ETCD}HOST:PORT, such as 10.0.0.1:29500")
    if master and not 0 < int(master.rpartition(":")[2]) < 65536:
        raise UsageError(f"--master {master}: the port must be from 1 to 65535")
    if low != high and not master.startswith(ETCD):
        raise UsageError(
            f"--nnodes {nnodes}: an elastic job needs an etcd server to meet at, --master {ETCD}HOST:PORT; without one give "
            "one number"
        )
    return Nodes(low, high, master, rank, host)


def settle(nodes: Nodes) -> Nodes:
    """`nodes` with numeric addresses, after waiting for the machine with rank 0.

    Raises:
        DistributedError: a name without address, a port that is taken, a machine that is not the one of `--master`, a
            missing library for etcd, or no answer within the time limit.
    """
    if nodes.master is None:
        return nodes
    is_elastic = nodes.master.startswith(ETCD)
    name, _, port = nodes.master.removeprefix(ETCD).rpartition(":")
    ip = _resolve(name, nodes.master)
    if is_elastic:
        os.environ.setdefault(PROTOBUF, "python")
        try:
            importlib.import_module("etcd3")
        except Exception as error:  # also protobuf's TypeError for generated code of another version
            raise DistributedError(
                f"--master {ETCD}...: the Python package etcd3 cannot be used ({' '.join(str(error).split())[:120]}); "
                f"pip install etcd3, and set {PROTOBUF}=python, or install protobuf<=3.20.3"
            ) from error
        wait_until_open(ip, int(port), f"etcd at {name}:{port}")
    elif nodes.rank == 0:
        _require_free(ip, int(port), nodes)
    elif nodes.rank > 0:
        wait_until_open(ip, int(port), f"the launcher of rank 0 at {name}:{port}")
    master = f"{ETCD if is_elastic else ''}{ip}:{port}"
    own = nodes.host
    if not own:
        # Connecting a datagram socket sends nothing, and selects the address from which this machine reaches the other one.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((ip, int(port)))
            own = probe.getsockname()[0]
    return Nodes(nodes.low, nodes.high, master, nodes.rank, own)


def _resolve(name: str, master: str) -> str:
    """The IPv4 address of a host name, waiting for a name that is registered later, such as that of a pod."""
    until = time.monotonic() + min(_NAME_SECONDS, wait_seconds())
    while True:
        try:
            return socket.getaddrinfo(name, None, socket.AF_INET)[0][4][0]
        except OSError as error:
            if time.monotonic() > until:
                raise DistributedError(
                    f"--master {master}: {name} has no address here ({error.strerror}); give an IP address or mend the name"
                ) from error
            time.sleep(min(1.0, wait_seconds()))


def _require_free(ip: str, port: int, nodes: Nodes) -> None:
    """Refuses a meeting point that rank 0 cannot open, or that others cannot reach."""
    name = nodes.master.rpartition(":")[0]
    if is_loopback(ip) and not is_loopback(name):
        raise DistributedError(
            f"--master {nodes.master}: {name} is {ip} here, which other machines cannot reach; give the address of a network "
            "interface (ip addr), or mend /etc/hosts"
        )
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((ip, 0))
        except OSError as error:
            if nodes.host is None:
                raise DistributedError(
                    f"--master {nodes.master}: {ip} is no address of this machine, where rank 0 runs; give one of its "
                    "addresses, or --host where others reach it by an address that it does not know"
                ) from error
    error = opening_error(port)
    if error is not None:
        raise DistributedError(
            f"--master {nodes.master}: port {port} of this machine cannot be opened ({error.strerror}); choose another one "
            "on all machines, or end the program that has it (ss -ltnp)"
        ) from error
