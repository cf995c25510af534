"""A limit of requests a minute, and the pause that a provider asks for. One per process.

Generic cell rate algorithm: permits are spaced evenly, so that no window of a minute holds more
than the limit and one, whatever the arrivals, and also right after a pause. The one more makes up
for a late wake-up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

Clock = Callable[[], float]
Sleep = Callable[[float], Awaitable[None]]


class RateLimit:
    """`per_minute` of 0 means no limit; `cool_down` holds everybody back all the same."""

    def __init__(self, per_minute: int, *, clock: Clock, sleep: Sleep = asyncio.sleep) -> None:
        self._interval_s = 60.0 / per_minute if per_minute else 0.0
        self._clock = clock
        self._sleep = sleep
        self._next_at = clock()
        self._closed_until = self._next_at
        self._turn = asyncio.Lock()

    async def permit(self) -> None:
        """Returns when the caller may send one request; first come, first served."""
        arrived_at = self._clock()
        async with self._turn:
            while (wait_s := self._opens_at() - self._clock()) > 0:
                await self._sleep(wait_s)
            planned_at = max(self._opens_at(), arrived_at)
            self._next_at = max(planned_at + self._interval_s, self._clock())

    def cool_down(self, wait_s: float) -> None:
        """Nobody sends for `wait_s` seconds from now."""
        self._closed_until = max(self._closed_until, self._clock() + wait_s)

    def _opens_at(self) -> float:
        return max(self._next_at, self._closed_until)
