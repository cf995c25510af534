"""Putting an asker together for one stage."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Coroutine, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

from nats.aio.client import Client
from nats.js import JetStreamContext

from services.kernel import topology
from services.kernel.circumstances import Circumstances
from services.kernel.fleet.clock import FleetClock
from services.kernel.fleet.records import Fleet
from services.kernel.holding import Holding
from services.kernel.llm.asker import Asker
from services.kernel.llm.cache import BucketCache
from services.kernel.llm.calling import Caller
from services.kernel.llm.claims import BucketClaims
from services.kernel.llm.http_provider import open_http_provider
from services.kernel.llm.opening_budget import Stage, open_budget, open_prices
from services.kernel.llm.prices import Priced, WorstCase
from services.kernel.llm.rate_limit import RateLimit
from services.kernel.llm.routes import SingleRoute
from services.kernel.metrics import Metrics
from services.kernel.model_settings import ModelSettings, StageSettings, resolve_provider


@asynccontextmanager
async def open_asker(
    nc: Client,
    js: JetStreamContext,
    settings: ModelSettings,
    stage: StageSettings,
    metrics: Metrics,
    dependencies: MutableMapping[str, str | None],
    holding: Holding,
    circumstances: Circumstances,
) -> AsyncIterator[Asker]:
    """Raises SettingsError when the provider is only half chosen."""
    access = resolve_provider(settings)
    fleet = Fleet(await js.key_value(topology.FLEET.name), nc)
    clock = FleetClock()
    await clock.set(js)
    cache = BucketCache(await js.key_value(topology.COMPLETIONS.name))
    claims = BucketClaims(
        await js.key_value(topology.CLAIMS.name),
        ttl_s=settings.nats.ack_wait_s,
        holder=f"{socket.gethostname()}:{os.getpid()}",
    )
    async with (
        _kept_going(fleet.follow(), clock.keep(js)),
        open_http_provider(
            access, timeout_s=settings.provider.timeout_s, concurrency=stage.concurrency
        ) as provider,
        open_prices(settings, stage, [(access, provider)]) as prices,
        open_budget(
            fleet,
            clock,
            settings,
            Stage(metrics.service, stage),
            WorstCase(prices, [access]),
            metrics,
            circumstances,
            dependencies,
        ) as budget,
    ):
        limit = RateLimit(stage.requests_per_minute, clock=time.monotonic)
        dependencies["provider"] = None

        def note_trouble(reason: str | None) -> None:
            dependencies["provider"] = reason

        routes = SingleRoute(access, Priced(provider, prices), limit, note_trouble=note_trouble)
        caller = Caller(routes, budget, cache, metrics, holding)
        yield Asker(caller, access, cache, claims, stage, metrics)


@asynccontextmanager
async def _kept_going(*works: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(work) for work in works]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
