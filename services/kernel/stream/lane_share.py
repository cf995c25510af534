"""When a bulk term may begin: in a worker that normal terms leave free, or when it is its turn.

Without this a bulk term would be there each time that a normal one ends and the next has yet to be
fetched, and get half of what the stage can do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from nats.aio.msg import Msg

from services.kernel import topology
from services.kernel.nats_faults import NATS_FAULTS

NORMAL_BEFORE_BULK: Final = 9
"""So many normal terms begin, then a bulk one does: it gets on, and holds up little."""
_FETCHED_WITHIN_S: Final = 0.5
"""A normal term that waits on the stream is here by then, or another replica has it."""


class LaneShare:
    """Delivers the messages of one service in one replica.

    `concurrency` are the workers of its main consumer. Urgent terms begin at once.
    """

    def __init__(self, deliver: Callable[[Msg], Awaitable[None]], *, concurrency: int) -> None:
        self._deliver = deliver
        self._concurrency = concurrency
        self._normal = self._bulk = self._since_bulk = 0
        self._more_wait = False
        self._expected_until = 0.0
        self._is_closed = False
        self._changed = asyncio.Condition()

    async def __call__(self, message: Msg) -> None:
        _, lane = topology.source_of(message.subject)
        if lane == "bulk":
            await self._work_in_bulk(message)
            return
        if lane is None:
            self._more_wait = message.metadata.num_pending > 0
        if lane is None and topology.PRIORITY not in (message.headers or {}):
            await self._work_normally(message)
        else:  # Urgent, or only left to its lane.
            await self._deliver(message)

    async def close(self) -> None:
        """The service stops: bulk terms that wait are handed back."""
        self._is_closed = True
        await self._tell()

    async def _work_normally(self, message: Msg) -> None:
        self._normal += 1
        self._since_bulk += 1
        await self._tell()
        try:
            await self._deliver(message)
        finally:
            self._normal -= 1
            await self._tell()

    async def _work_in_bulk(self, message: Msg) -> None:
        async with self._changed:
            while not self._is_closed and not self._has_place():
                with suppress(TimeoutError):
                    async with asyncio.timeout(_FETCHED_WITHIN_S):
                        await self._changed.wait()
            if not self._is_closed:
                self._bulk += 1
                self._since_bulk = 0
        if self._is_closed:
            with suppress(*NATS_FAULTS):
                await message.nak()
            return
        try:
            await self._deliver(message)
        finally:
            self._bulk -= 1
            await self._tell()

    def _has_place(self) -> bool:
        if self._since_bulk >= NORMAL_BEFORE_BULK:
            return True
        is_free = self._normal + self._bulk < self._concurrency
        return is_free and _now() >= self._expected_until

    async def _tell(self) -> None:
        """A term has begun or ended; where more wait, the next one is about to come."""
        self._expected_until = _now() + _FETCHED_WITHIN_S if self._more_wait else 0.0
        async with self._changed:
            self._changed.notify_all()


def _now() -> float:
    return asyncio.get_running_loop().time()
