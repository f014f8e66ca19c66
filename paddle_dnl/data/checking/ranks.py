# SPDX-License-Identifier: Apache-2.0
"""Processes that look at a dataset together, some of them on one machine."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass
class Ranks:
    """Processes that check a dataset together; by default this one alone.

    Attributes:
        gather: gives each of them the values of all, in rank order.
        machine: of this process; the same text in those that see the same files, and share the work; empty where this
            process works for itself.
        place, count: this process among those of the machine.
    """

    gather: Callable[[object], list] = lambda value: [value]
    machine: str = ""
    place: int = 0
    count: int = 1

    def by_machine(self, value: T) -> tuple[list[T], dict[str, list[T]]]:
        """The values of the processes of this machine, and those of all machines, that of rank 0 first."""
        machines: dict[str, list[T]] = {}
        for rank, (machine, given) in enumerate(self.gather((self.machine, value))):
            machines.setdefault(machine or f"rank {rank}", []).append(given)
        return machines[self.machine] if self.machine else [value], machines
