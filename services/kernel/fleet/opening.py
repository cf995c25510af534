"""Opening what all replicas share: the records and the clock, both kept up to date."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

from nats.aio.client import Client
from nats.js import JetStreamContext

from services.kernel import topology
from services.kernel.fleet.clock import FleetClock
from services.kernel.fleet.records import Fleet

_CANCEL_AGAIN_S: Final = 0.1


@asynccontextmanager
async def open_fleet(nc: Client, js: JetStreamContext) -> AsyncIterator[tuple[Fleet, FleetClock]]:
    """Raises what NATS raises when the server can't be asked."""
    clock = FleetClock()
    await clock.set(js)
    fleet = Fleet(await js.key_value(topology.FLEET.name), nc)
    async with background(fleet.follow()), background(clock.keep(js)):
        yield fleet, clock


@asynccontextmanager
async def background(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Runs `work`, which has no end, beside the block, and ends it with the block."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        # Again and again: asyncio.wait_for, which the NATS client waits in, forgets that it was
        # cancelled when its answer comes at the same moment.
        while not task.done():
            task.cancel()
            await asyncio.wait([task], timeout=_CANCEL_AGAIN_S)
        with suppress(asyncio.CancelledError):
            await task
