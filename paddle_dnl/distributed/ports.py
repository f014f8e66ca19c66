# SPDX-License-Identifier: Apache-2.0
"""Ports: whether this process can open one, and waiting until another process has, with the time limit of all waits."""

import os
import socket
import time

from paddle_dnl.errors import DistributedError
from paddle_dnl.log import logger

WAIT_VARIABLE = "PADDLE_DNL_WAIT_SECONDS"
_WAIT_SECONDS = 1800.0
_NOTICE_SECONDS = 60.0


def wait_seconds() -> float:
    """Time limit in seconds, from the environment variable `PADDLE_DNL_WAIT_SECONDS` or the default.

    Raises:
        DistributedError: the variable is not a positive number.
    """
    text = os.environ.get(WAIT_VARIABLE, "") or str(_WAIT_SECONDS)
    try:
        if float(text) > 0:
            return float(text)
    except ValueError:
        pass
    raise DistributedError(f"{WAIT_VARIABLE}={text}: must be a positive number of seconds")


def opening_error(port: int) -> OSError | None:
    """The error of listening on a port at all addresses of this machine; None if it can be opened."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            return error
    return None


def wait_until_open(host: str, port: int, what: str) -> None:
    """Waits until a port accepts connections.

    Args:
        host: name or address.
        port: port of the host.
        what: describes the peer in messages.

    Raises:
        DistributedError: no connection within the time limit of `wait_seconds`.
    """
    began, limit, said = time.monotonic(), wait_seconds(), 0.0
    while True:
        try:
            socket.create_connection((host, port), timeout=5).close()
            return
        except OSError as error:
            waited = time.monotonic() - began
            if waited > limit:
                raise DistributedError(
                    f"{what}: no answer in {limit:.0f} s ({error.strerror or error}); is it started, and the port open? "
                    f"({WAIT_VARIABLE} is the limit)"
                ) from error
            if waited >= said:
                logger.info(f"waiting for {what}")
                said += _NOTICE_SECONDS
            time.sleep(min(1.0, limit))
