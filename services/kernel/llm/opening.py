"""Putting an asker together for one stage."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from functools import partial

from nats.aio.client import Client
from nats.js import JetStreamContext

from services.kernel import topology
from services.kernel.circumstances import Circumstances
from services.kernel.fleet.limits import limits_of
from services.kernel.fleet.opening import open_fleet
from services.kernel.fleet.stage_pace import open_pace
from services.kernel.holding import Holding
from services.kernel.llm.asker import Asker
from services.kernel.llm.cache import BucketCache
from services.kernel.llm.calling import Caller
from services.kernel.llm.claims import BucketClaims
from services.kernel.llm.opening_budget import Stage, open_budget, open_prices
from services.kernel.llm.prices import Priced, WorstCase
from services.kernel.llm.route_opening import RouteOpener, Served, open_providers, open_routes
from services.kernel.metrics import Metrics
from services.kernel.model_settings import ModelSettings, StageSettings
from services.kernel.provider_access import resolve_fallbacks, resolve_provider


@asynccontextmanager
async def open_asker(
    nc: Client,
    js: JetStreamContext,
    settings: ModelSettings,
    name: topology.ServiceName,
    stage: StageSettings,
    metrics: Metrics,
    dependencies: MutableMapping[str, str | None],
    holding: Holding,
    circumstances: Circumstances,
    pause_until: Callable[[float], Awaitable[None]],
) -> AsyncIterator[Asker]:
    """`pause_until` pauses the stage until a time by the clock of the fleet.

    Raises SettingsError when the provider is only half chosen.
    """
    access = resolve_provider(settings, stage)
    fallbacks = resolve_fallbacks(settings, access)
    dependencies["provider"] = None
    cache = BucketCache(await js.key_value(topology.COMPLETIONS.name))
    replica = f"{socket.gethostname()}:{os.getpid()}"
    claims = BucketClaims(
        await js.key_value(topology.CLAIMS.name), ttl_s=settings.nats.ack_wait_s, holder=replica
    )
    async with (
        open_fleet(nc, js) as (fleet, clock),
        open_pace(
            fleet,
            clock,
            name,
            limits_of(stage),
            replica=replica,
            concurrency=stage.concurrency,
            metrics=metrics,
        ) as pace,
        open_providers(
            [(access, 0.0), *fallbacks],
            timeout_s=settings.provider.timeout_s,
            concurrency=stage.concurrency,
        ) as providers,
        open_prices(
            settings, stage, [(each.access, each.provider) for each in providers]
        ) as prices,
        open_budget(
            fleet,
            clock,
            settings,
            Stage(metrics.service, stage),
            WorstCase(prices, [p.access for p in providers]),
            metrics,
            circumstances,
            dependencies,
        ) as budget,
        open_routes(
            RouteOpener(
                fleet,
                clock,
                name,
                replica,
                stage.concurrency,
                settings.provider,
                metrics,
                pace,
                partial(dependencies.__setitem__, "provider"),
            ),
            [
                Served(p.access, Priced(p.provider, prices), p.requests_per_minute)
                for p in providers
            ],
            pause_until=pause_until,
        ) as routes,
    ):
        caller = Caller(routes, budget, cache, metrics, holding)
        instead = tuple(access for access, _limit in fallbacks)
        yield Asker(caller, access, cache, claims, stage, metrics, fallbacks=instead)
