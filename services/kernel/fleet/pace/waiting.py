"""Who waits for a turn in this replica, and who has it next."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Final, get_args

from services.kernel.contracts.term import Priority

_OLDEST_EVERY: Final = 10
"""One turn in so many goes to whoever has waited longest, so that bulk moves on, too."""


@dataclass(eq=False)
class Waiter:
    """One call that waits; `turn` is given the time of its permit."""

    tokens: int
    since: float
    turn: asyncio.Future[float] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Waiting:
    """Urgent ones first, bulk last; within a priority, first come, first served."""

    def __init__(self) -> None:
        self._lanes: dict[Priority, dict[Waiter, None]] = {p: {} for p in get_args(Priority)}
        self._taken = 0

    def __len__(self) -> int:
        return sum(map(len, self._lanes.values()))

    def add(self, waiter: Waiter, priority: Priority) -> None:
        self._lanes[priority][waiter] = None

    def remove(self, waiter: Waiter) -> None:
        """Also one that is not there any more."""
        for lane in self._lanes.values():
            lane.pop(waiter, None)

    def take(self) -> Waiter:
        """The next one. There must be one."""
        self._taken += 1
        first = [next(iter(lane)) for lane in self._lanes.values() if lane]
        is_oldest = self._taken % _OLDEST_EVERY == 0
        waiter = min(first, key=lambda each: each.since) if is_oldest else first[0]
        self.remove(waiter)
        return waiter

    def first(self, count: int) -> Iterator[Waiter]:
        """The next ones, roughly in order."""
        return islice(chain.from_iterable(self._lanes.values()), count)
