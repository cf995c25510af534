"""Opening the routes of a stage: a client, a health and a pace for each, and what runs behind."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final
from urllib.parse import urlsplit

from services.kernel.fleet.background import background
from services.kernel.fleet.breaker import BreakerRules
from services.kernel.fleet.clock import FleetClock
from services.kernel.fleet.health import Health
from services.kernel.fleet.health_record import HealthRecord
from services.kernel.fleet.limits import Limits
from services.kernel.fleet.pace import Pace
from services.kernel.fleet.pace_record import PaceRecord
from services.kernel.fleet.records import Fleet
from services.kernel.llm.http_provider import open_http_provider
from services.kernel.llm.provider import Provider
from services.kernel.llm.route import Route
from services.kernel.llm.routes import OrderedRoutes
from services.kernel.metrics import Metrics
from services.kernel.model_settings import ProviderAccess, ProviderSettings

HEALTH: Final = "health."
"""What the keys of the health records in FLEET begin with."""

_NOT_IN_KEYS: Final = re.compile(r"[^A-Za-z0-9_-]+", re.ASCII)
_MODEL_SHOWN: Final = 40
_CHOSEN: Final = "chosen"


def route_id(access: ProviderAccess, model: str) -> str:
    """Names a route in keys: the same for all stages and replicas.

    Behind whichever port it listens, the simulator is the same provider.
    """
    where = "" if access.kind == "simulated" else access.base_url
    digest = blake2b(f"{access.kind}\0{where}\0{model}".encode(), digest_size=5).hexdigest()
    return f"{_NOT_IN_KEYS.sub('-', model)[:_MODEL_SHOWN].strip('-')}.{digest}"


@dataclass(frozen=True)
class RouteOpener:
    """What the routes of one stage in one replica have in common.

    `first_opening_s`: how long a circuit breaker opens at first.
    """

    fleet: Fleet
    clock: FleetClock
    stage: str
    replica: str
    concurrency: int
    settings: ProviderSettings
    metrics: Metrics
    stage_pace: Pace
    note_trouble: Callable[[str | None], None]
    first_opening_s: float = BreakerRules.first_s

    @property
    def rules(self) -> BreakerRules:
        settings = self.settings
        return BreakerRules(
            settings.breaker_failures, settings.breaker_share, first_s=self.first_opening_s
        )

    async def open(
        self,
        opened: AsyncExitStack,
        name: str,
        access: ProviderAccess,
        provider: Provider,
        *,
        model: str,
        limit: float = 0,
        is_first_provider: bool = True,
    ) -> Route:
        """`opened` closes what is opened here. `limit`: requests a minute of the route alone.

        Raises Outage when the records can't be reached.
        """
        health = await self._health(opened, access, model)
        return Route(
            name,
            access,
            provider,
            health,
            await self._pace(opened, access, model, lambda: limit or health.limit()),
            self.stage_pace if is_first_provider else None,
            limit,
            self.metrics,
            self.clock.now,
            self.note_trouble,
        )

    async def _health(self, opened: AsyncExitStack, access: ProviderAccess, model: str) -> Health:
        is_custom = access.kind == "custom"
        address = urlsplit(access.base_url).netloc.rpartition("@")[2]
        record = await self.fleet.followed(f"{HEALTH}{route_id(access, model)}", HealthRecord())
        named = {"model": model, "provider": address if is_custom else access.kind}
        await record.change(lambda value: value.model_copy(update=named))
        health = Health(record, self.clock.now, self.stage, self.rules)
        await opened.enter_async_context(background(health.keep()))
        return health

    async def _pace(
        self,
        opened: AsyncExitStack,
        access: ProviderAccess,
        model: str,
        limit: Callable[[], float],
    ) -> Pace:
        pace: Pace | None = None

        def look_again() -> None:
            if pace is not None:
                pace.look_again()

        key = f"pace.route.{route_id(access, model)}"
        record = await self.fleet.followed(key, PaceRecord(), look_again)
        pace = Pace(
            record,
            lambda: Limits(requests_per_minute=limit()),
            self.clock,
            replica=f"{self.stage}@{self.replica}",
            concurrency=self.concurrency,
        )
        await opened.enter_async_context(background(pace.keep()))
        return pace


@asynccontextmanager
async def open_routes(
    opener: RouteOpener,
    first: ProviderAccess,
    fallbacks: list[tuple[ProviderAccess, float]],
    *,
    pause_until: Callable[[float], Awaitable[None]],
) -> AsyncIterator[OrderedRoutes]:
    """The routes of one stage: the first, then `fallbacks` with their requests a minute.

    Raises SettingsError for an address that can't be used.
    """
    async with AsyncExitStack() as opened:
        routes: list[Route] = []
        for place, (access, limit) in enumerate([(first, 0.0), *fallbacks]):
            provider = await opened.enter_async_context(
                open_http_provider(
                    access, timeout_s=opener.settings.timeout_s, concurrency=opener.concurrency
                )
            )
            route = await opener.open(
                opened,
                f"fallback{place}" if place else "first",
                access,
                provider,
                model=access.model,
                limit=limit,
                is_first_provider=access.base_url == first.base_url,
            )
            routes.append(route)
        chosen: dict[str, Route] = {}
        opening = asyncio.Lock()

        async def choose(model: str) -> Route:
            async with opening:
                if model not in chosen:
                    chosen[model] = await opener.open(
                        opened, _CHOSEN, first, routes[0].provider, model=model
                    )
            return chosen[model]

        ordered = OrderedRoutes(
            routes,
            chosen=choose,
            now=opener.clock.now,
            pause_until=pause_until,
            note_trouble=opener.note_trouble,
        )
        async with background(ordered.watch()):
            yield ordered
