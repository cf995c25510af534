"""Holding on to what was paid for until it is written.

An answer of the model, or what was made of it, exists only in this process until a bucket or a
stream has it. Giving it up would mean to pay again. So whoever holds one waits, and with it its
place among the terms worked on at once: a stage whose results nobody takes soon stops asking.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import structlog

from services.kernel.errors import Outage

T = TypeVar("T")
Sleep = Callable[[float], Awaitable[None]]

_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 2.0


class Holding:
    """Repeats writes until they succeed.

    `note_trouble` hears why something can't be written, and None when the last of what was held
    is written. `write` must be harmless when it is repeated. A cancelled task stops waiting.
    """

    def __init__(
        self,
        note_trouble: Callable[[str | None], None] = lambda _reason: None,
        *,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._note_trouble = note_trouble
        self._sleep = sleep
        self._held = 0

    async def until_written(self, write: Callable[[], Awaitable[T]]) -> T:
        """What `write` returns, as soon as it does not raise Outage."""
        try:
            return await write()
        except Outage as error:
            reason = str(error)
        self._held += 1
        if self._held == 1:
            structlog.get_logger().warning("results.held", reason=reason)
        try:
            return await self._repeat(write, reason)
        finally:
            self._held -= 1
            if not self._held:
                self._note_trouble(None)
                structlog.get_logger().info("results.released")

    async def _repeat(self, write: Callable[[], Awaitable[T]], reason: str) -> T:
        pause_s = _FIRST_PAUSE_S
        while True:
            self._note_trouble(reason)
            await self._sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            try:
                return await write()
            except Outage as error:
                reason = str(error)
