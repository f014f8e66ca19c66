# SPDX-License-Identifier: Apache-2.0
"""Checks of the environment variables of a rank, set by the launcher or by hand, before the ranks connect.

Faults that stop the launcher before it starts a rank (`--nnodes 2` without `--master`, a `--master` that is a host name or an
address of another network, a machine that never starts) are checked in `launching`.
"""

import os
from collections import Counter
from collections.abc import Mapping

from paddle_dnl.addresses import is_loopback
from paddle_dnl.errors import DistributedError

_COUNT, _RANK, _ADDRESSES = "PADDLE_TRAINERS_NUM", "PADDLE_TRAINER_ID", "PADDLE_TRAINER_ENDPOINTS"


def require_sound(variables: Mapping[str, str] = os.environ) -> None:
    """Refuses variables with which the processes would wait for each other forever, or fail with a traceback.

    Raises:
        DistributedError: names the variable, its value, and what to do.
    """
    count, rank = (_number(variables, name) for name in (_COUNT, _RANK))
    if rank >= count:
        raise DistributedError(f"{_RANK}={rank}: ranks are counted from 0, and there are {count} ({_COUNT})")
    text = variables.get(_ADDRESSES, "")
    addresses = [address for address in text.split(",") if address]
    if addresses and len(addresses) != count:
        raise DistributedError(
            f"{_ADDRESSES} names {len(addresses)} processes ({text[:80]}), and {_COUNT} is {count}; start all machines with "
            "the same --nnodes, and unset variables of an earlier start"
        )
    twice = [address for address, times in Counter(addresses).items() if times > 1]
    if twice:
        raise DistributedError(
            f"{_ADDRESSES} names {twice[0]} twice; give each process its own address (--host or POD_IP of each machine)"
        )
    # A meeting point on a loopback address, where the ranks' addresses show that they run on several machines.
    by_hand = "MASTER_ADDR" in variables and "MASTER_PORT" in variables
    store = variables["MASTER_ADDR"] if by_hand else variables.get("PADDLE_MASTER", "").rpartition(":")[0]
    hosts = list(dict.fromkeys(address.rpartition(":")[0] for address in addresses))
    others = [host for host in hosts if not is_loopback(host)]
    if is_loopback(store) and others and len(hosts) > 1:
        name = "PADDLE_MASTER"
        advice = "give the machine of rank 0 --host with an address that the others reach, and mend its /etc/hosts"
        if by_hand:
            name, advice = "MASTER_ADDR", "unset it, or give an address that all machines reach"
        raise DistributedError(
            f"{name}: the ranks are to meet at {store}, which is each machine itself, and {others[0]} is another one; {advice}"
        )


def _number(variables: Mapping[str, str], name: str) -> int:
    text = variables.get(name, "")
    if not text.isdecimal():
        raise DistributedError(
            f"{name}={text}: expected a whole number; paddle.distributed.launch sets it, so unset it and start with that"
        )
    return int(text)
