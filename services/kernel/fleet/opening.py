"""Opening what all replicas share: the records and the clock, both kept up to date."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from nats.aio.client import Client
from nats.js import JetStreamContext

from services.kernel import topology
from services.kernel.fleet.background import background
from services.kernel.fleet.clock import FleetClock
from services.kernel.fleet.records import Fleet


@asynccontextmanager
async def open_fleet(nc: Client, js: JetStreamContext) -> AsyncIterator[tuple[Fleet, FleetClock]]:
    """Raises what NATS raises when the server can't be asked."""
    clock = FleetClock()
    await clock.set(js)
    fleet = Fleet(await js.key_value(topology.FLEET.name), nc)
    async with background(fleet.follow()), background(clock.keep(js)):
        yield fleet, clock
