"""Putting an asker together for one stage."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager

from nats.js import JetStreamContext

from services.kernel import topology
from services.kernel.holding import Holding
from services.kernel.llm.asker import Asker
from services.kernel.llm.budget import NoBudget
from services.kernel.llm.cache import BucketCache
from services.kernel.llm.calling import Caller
from services.kernel.llm.claims import BucketClaims
from services.kernel.llm.http_provider import open_http_provider
from services.kernel.llm.rate_limit import RateLimit
from services.kernel.llm.routes import SingleRoute
from services.kernel.metrics import Metrics
from services.kernel.model_settings import ModelSettings, StageSettings, resolve_provider


@asynccontextmanager
async def open_asker(
    js: JetStreamContext,
    settings: ModelSettings,
    stage: StageSettings,
    metrics: Metrics,
    dependencies: MutableMapping[str, str | None],
    holding: Holding,
) -> AsyncIterator[Asker]:
    """Raises SettingsError when the provider is only half chosen."""
    access = resolve_provider(settings)
    cache = BucketCache(await js.key_value(topology.COMPLETIONS.name))
    claims = BucketClaims(
        await js.key_value(topology.CLAIMS.name),
        ttl_s=settings.nats.ack_wait_s,
        holder=f"{socket.gethostname()}:{os.getpid()}",
    )
    async with open_http_provider(
        access, timeout_s=settings.provider.timeout_s, concurrency=stage.concurrency
    ) as provider:
        limit = RateLimit(stage.requests_per_minute, clock=time.monotonic)
        dependencies["provider"] = None

        def note_trouble(reason: str | None) -> None:
            dependencies["provider"] = reason

        routes = SingleRoute(access, provider, limit, note_trouble=note_trouble)
        caller = Caller(routes, NoBudget(), cache, metrics, holding)
        yield Asker(caller, access, cache, claims, stage, metrics)
