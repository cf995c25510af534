"""Giving turns to the calls that wait in this replica, each when its permit is due."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final

from services.kernel.contracts.term import Priority
from services.kernel.fleet.pace.record import LATE_S, Permit
from services.kernel.fleet.pace.waiting import Waiter, Waiting

_EARLY_S: Final = 0.001
"""Timers wake up in whole milliseconds."""
_SOON_S: Final = 0.02


class Giving:
    """Who waits, the permits at hand, and how many calls are under way.

    `late` have a slot, and need another permit than the one they had. `on_given` and `on_unused`
    hear what becomes of each permit. `clock` gives the server's seconds.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        on_given: Callable[[Waiter, Permit], None],
        on_unused: Callable[[Permit], None],
    ) -> None:
        self._clock = clock
        self._on_given = on_given
        self._on_unused = on_unused
        self._waiting = Waiting()
        self._late: deque[Waiter] = deque()
        self._permits: deque[Permit] = deque()
        self.active = 0

    @property
    def needed(self) -> int:
        """Slots, had everybody one."""
        return self.active + len(self._waiting)

    def add(self, waiter: Waiter, priority: Priority) -> None:
        self._waiting.add(waiter, priority)

    def add_late(self, waiter: Waiter) -> None:
        self._late.append(waiter)

    def remove(self, waiter: Waiter) -> None:
        """It waits no more; harmless for one that does not wait."""
        self._waiting.remove(waiter)
        with suppress(ValueError):
            self._late.remove(waiter)

    def add_permits(self, permits: Iterable[Permit]) -> None:
        self._permits = deque(sorted([*self._permits, *permits]))

    def drop_permits(self) -> None:
        self._permits.clear()

    def give(self, slots: int, *, paced: bool) -> None:
        """Every turn that can be given now; `slots` calls may be under way at once."""
        while self._late and (permit := self._due(paced=paced)):
            self._give_to(self._late.popleft(), permit)
        while len(self._waiting) and self.active < slots and (permit := self._due(paced=paced)):
            self.active += self._give_to(self._waiting.take(), permit)

    def wanting(self, slots: int) -> tuple[int, ...]:
        """The tokens of each call that could be made now, had it one more permit."""
        free = max(0, slots - self.active)
        callers = [*self._late, *self._waiting.first(free)]
        return tuple(caller.tokens for caller in callers[len(self._permits) :])

    def due_in_s(self) -> float | None:
        """Seconds until the next turn can be given; None when nothing is to be given."""
        if not self._permits or not (self._late or len(self._waiting)):
            return None
        in_s = self._permits[0].at - self._clock()
        return in_s if in_s > 0 else _SOON_S  # One that was not given waits for a slot.

    def _give_to(self, waiter: Waiter, permit: Permit) -> bool:
        """False when it was cancelled, and has not come to removing itself."""
        if waiter.turn.done():
            self._permits.appendleft(permit)
            return False
        waiter.turn.set_result(permit.at)
        self._on_given(waiter, permit)
        return True

    def _due(self, *, paced: bool) -> Permit | None:
        now = self._clock()
        if not paced:
            self._permits.clear()
            return Permit(now, 0)
        while self._permits and self._permits[0].at < now - LATE_S:
            self._on_unused(self._permits.popleft())
        if self._permits and self._permits[0].at <= now + _EARLY_S:
            return self._permits.popleft()
        return None
