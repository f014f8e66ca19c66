# SPDX-License-Identifier: Apache-2.0
"""Whether this process can open a port."""

import socket


def opening_error(port: int) -> OSError | None:
    """The error of listening at a port on all addresses of this machine; None where it can be opened."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            return error
    return None
