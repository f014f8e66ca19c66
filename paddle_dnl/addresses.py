# SPDX-License-Identifier: Apache-2.0
"""Network addresses that mean the machine itself."""

import ipaddress


def is_loopback(address: str) -> bool:
    """Whether an IP address or host name is one at which only this machine can be reached: 127.0.0.0/8, ::1, `localhost`."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"
