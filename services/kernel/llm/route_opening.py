"""Opening the routes of a stage: a client, a health and a pace for each, and what runs behind."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final, Generic, TypeVar
from urllib.parse import urlsplit

from services.kernel.fleet.background import background
from services.kernel.fleet.clock import FleetClock
from services.kernel.fleet.health.breaker import BreakerRules
from services.kernel.fleet.health.health import Health
from services.kernel.fleet.health.record import HealthRecord
from services.kernel.fleet.pace.limits import Limits
from services.kernel.fleet.pace.pace import Pace
from services.kernel.fleet.pace.record import PaceRecord
from services.kernel.fleet.records import Fleet
from services.kernel.llm.http_provider import HttpProvider, open_http_provider
from services.kernel.llm.provider import Provider
from services.kernel.llm.route import Route
from services.kernel.llm.routes import OrderedRoutes
from services.kernel.metrics import Metrics
from services.kernel.model_settings import ProviderSettings
from services.kernel.provider_access import ProviderAccess

ProviderT = TypeVar("ProviderT", bound=Provider, covariant=True)

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


@dataclass(frozen=True)
class Served(Generic[ProviderT]):
    """A model at a provider, who serves it, and the requests a minute set for it (0: none)."""

    access: ProviderAccess
    provider: ProviderT
    requests_per_minute: float


@asynccontextmanager
async def open_providers(
    chosen: Sequence[tuple[ProviderAccess, float]], *, timeout_s: float, concurrency: int
) -> AsyncIterator[list[Served[HttpProvider]]]:
    """A client for each choice and its requests a minute.

    Raises SettingsError for an address that can't be used.
    """
    async with AsyncExitStack() as opened:
        served: list[Served[HttpProvider]] = []
        for access, limit in chosen:
            provider = await opened.enter_async_context(
                open_http_provider(access, timeout_s=timeout_s, concurrency=concurrency)
            )
            served.append(Served(access, provider, limit))
        yield served


@asynccontextmanager
async def open_routes(
    opener: RouteOpener,
    served: Sequence[Served[Provider]],
    *,
    pause_until: Callable[[float], Awaitable[None]],
) -> AsyncIterator[OrderedRoutes]:
    """The routes of one stage in order: the first choice, then its fallbacks."""
    first = served[0]
    async with AsyncExitStack() as opened:
        routes: list[Route] = []
        for place, each in enumerate(served):
            route = await opener.open(
                opened,
                f"fallback{place}" if place else "first",
                each.access,
                each.provider,
                model=each.access.model,
                limit=each.requests_per_minute,
                is_first_provider=each.access.base_url == first.access.base_url,
            )
            routes.append(route)
        chosen: dict[str, Route] = {}
        opening = asyncio.Lock()

        async def choose(model: str) -> Route:
            async with opening:
                if model not in chosen:
                    chosen[model] = await opener.open(
                        opened, _CHOSEN, first.access, first.provider, model=model
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
