"""Putting an asker together for one stage."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial

from services.kernel import topology
from services.kernel.connected import Connected
from services.kernel.fleet.clock import FleetClock
from services.kernel.fleet.opening import open_fleet
from services.kernel.fleet.pace.limits import limits_of
from services.kernel.fleet.pace.stage import open_pace
from services.kernel.fleet.records import Fleet
from services.kernel.llm.asker import Asker
from services.kernel.llm.cache import BucketCache
from services.kernel.llm.calling import Caller
from services.kernel.llm.claims import BucketClaims
from services.kernel.llm.http_provider import HttpProvider
from services.kernel.llm.opening_budget import Stage, open_budget, open_prices
from services.kernel.llm.prices import Priced, Prices, WorstCase
from services.kernel.llm.route_opening import RouteOpener, Served, open_providers, open_routes
from services.kernel.llm.routes import Routes
from services.kernel.model_settings import ModelSettings, StageSettings
from services.kernel.provider_access import resolve_fallbacks, resolve_provider


@asynccontextmanager
async def open_asker(
    connected: Connected,
    settings: ModelSettings,
    name: topology.ServiceName,
    stage: StageSettings,
) -> AsyncIterator[Asker]:
    """Raises SettingsError when the provider is only half chosen."""
    first = resolve_provider(settings, stage)
    fallbacks = resolve_fallbacks(settings, first)
    js, metrics = connected.js, connected.metrics
    cache = BucketCache(await js.key_value(topology.COMPLETIONS.name))
    claims = BucketClaims(
        await js.key_value(topology.CLAIMS.name),
        ttl_s=settings.nats.ack_wait_s,
        holder=_replica(),
    )
    async with (
        open_fleet(connected.nc, js) as (fleet, clock),
        open_providers(
            [(first, 0.0), *fallbacks],
            timeout_s=settings.provider.timeout_s,
            concurrency=stage.concurrency,
        ) as providers,
        open_prices(settings, stage, [(p.access, p.provider) for p in providers]) as prices,
        open_budget(
            fleet,
            clock,
            settings,
            Stage(name, stage),
            WorstCase(prices, [p.access for p in providers]),
            connected,
        ) as budget,
        _open_routes(connected, fleet, clock, settings, name, stage, providers, prices) as routes,
    ):
        caller = Caller(routes, budget, cache, metrics, connected.holding)
        instead = tuple(access for access, _limit in fallbacks)
        yield Asker(caller, first, cache, claims, stage, metrics, fallbacks=instead)


@asynccontextmanager
async def _open_routes(
    connected: Connected,
    fleet: Fleet,
    clock: FleetClock,
    settings: ModelSettings,
    name: topology.ServiceName,
    stage: StageSettings,
    providers: Sequence[Served[HttpProvider]],
    prices: Prices,
) -> AsyncIterator[Routes]:
    """Every call of the stage is paced by its own limits, and priced."""
    connected.dependencies["provider"] = None
    priced = [
        Served(p.access, Priced(p.provider, prices), p.requests_per_minute) for p in providers
    ]
    async with open_pace(
        fleet,
        clock,
        name,
        limits_of(stage),
        replica=_replica(),
        concurrency=stage.concurrency,
        metrics=connected.metrics,
    ) as pace:
        opener = RouteOpener(
            fleet,
            clock,
            name,
            _replica(),
            stage.concurrency,
            settings.provider,
            connected.metrics,
            pace,
            partial(connected.dependencies.__setitem__, "provider"),
        )
        async with open_routes(opener, priced, pause_until=connected.pause_until) as routes:
            yield routes


def _replica() -> str:
    """Names this process among all replicas."""
    return f"{socket.gethostname()}:{os.getpid()}"
