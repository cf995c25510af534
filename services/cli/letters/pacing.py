"""A steady pace: so many starts a second, however many are at work at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

Clock = Callable[[], float]
Sleep = Callable[[float], Awaitable[None]]


class Pace:
    """Turns are `1 / per_second` seconds apart at least; time that nobody used is not made up."""

    def __init__(self, per_second: float, *, clock: Clock, sleep: Sleep = asyncio.sleep) -> None:
        self._interval_s = 1 / per_second
        self._clock = clock
        self._sleep = sleep
        self._next_at = clock()

    async def turn(self) -> None:
        """Returns when the caller may begin; first come, first served."""
        now = self._clock()
        at = max(self._next_at, now)
        self._next_at = at + self._interval_s
        if at > now:
            await self._sleep(at - now)
