# SPDX-License-Identifier: Apache-2.0
"""The ranks that check a dataset together, and which of them are on one machine."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass
class Ranks:
    """The ranks that check a dataset together; by default this process alone.

    Attributes:
        gather: all-gather of an object: the values of all ranks, in rank order.
        machine: name of the machine; ranks with the same name see the same files and share the work. Empty if this process
            works alone.
        place, count: index of this rank among those of its machine, and their number.
    """

    gather: Callable[[object], list] = lambda value: [value]
    machine: str = ""
    place: int = 0
    count: int = 1

    def by_machine(self, value: T) -> tuple[list[T], dict[str, list[T]]]:
        """The values of the ranks of this machine, and machine -> values for all machines, that of rank 0 first."""
        machines: dict[str, list[T]] = {}
        for rank, (machine, given) in enumerate(self.gather((self.machine, value))):
            machines.setdefault(machine or f"rank {rank}", []).append(given)
        return machines[self.machine] if self.machine else [value], machines
