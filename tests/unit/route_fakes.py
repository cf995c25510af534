"""Routes among fakes: a shared bucket in memory, a clock that only sleeping moves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from unit.pace_fakes import MemoryBucket, free_pace, pace_on

from services.kernel.fleet.health.breaker import BreakerRules
from services.kernel.fleet.health.health import Health
from services.kernel.fleet.health.record import HealthRecord
from services.kernel.fleet.pace.limits import Limits
from services.kernel.llm.provider import Provider
from services.kernel.llm.route import Route
from services.kernel.llm.routes import OrderedRoutes
from services.kernel.metrics import Metrics
from services.kernel.provider_access import ProviderAccess
from services.kernel.record import Record

Clock = Callable[[], float]
Sleep = Callable[[float], Awaitable[None]]


def health_on(
    bucket: MemoryBucket, clock: Clock, *, route: str = "first", stage: str = "stage1"
) -> Health:
    """One replica's view of a route whose record others may share. It does not jitter."""
    record = Record[HealthRecord](bucket, f"health.{route}", HealthRecord(), writes_max=50)  # type: ignore[arg-type]
    return Health(record, clock, stage, BreakerRules(), jitter=lambda: 0.0)


def route_on(
    bucket: MemoryBucket,
    clock: Clock,
    access: ProviderAccess,
    provider: Provider,
    *,
    name: str = "first",
    stage: str = "stage1",
    metrics: Metrics | None = None,
    note_trouble: Callable[[str | None], None] = lambda _reason: None,
    requests_per_minute: float = 0,
) -> Route:
    """A route whose permits are free, unless the stage's limit, `requests_per_minute`, is set."""
    stage_pace = pace_on(
        MemoryBucket(), clock, limits=lambda: Limits(requests_per_minute=requests_per_minute)
    )
    return Route(
        name,
        access,
        provider,
        health_on(bucket, clock, route=name, stage=stage),
        free_pace(clock),
        stage_pace,
        0,
        metrics or Metrics(stage),
        clock,
        note_trouble,
    )


class Pauses:
    """What the stage was paused until, in order."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    async def __call__(self, until: float) -> None:
        self.ends.append(until)


def routes_of(
    routes: Sequence[Route],
    clock: Clock,
    sleep: Sleep,
    *,
    pauses: Pauses | None = None,
    note_trouble: Callable[[str | None], None] = lambda _reason: None,
) -> OrderedRoutes:
    async def chosen(_model: str) -> Route:
        return routes[0]

    return OrderedRoutes(
        routes,
        chosen=chosen,
        now=clock,
        pause_until=pauses or Pauses(),
        note_trouble=note_trouble,
        sleep=sleep,
        jitter=lambda: 0.0,
    )
