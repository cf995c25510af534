"""How the providers are doing, as the fleet knows it, for people and for JSON."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

from nats.js import JetStreamContext
from nats.js.errors import KeyNotFoundError, NoKeysError
from pydantic import ValidationError

from services.kernel import topology
from services.kernel.fleet.clock import FleetClock
from services.kernel.fleet.health.circuit import Circuit
from services.kernel.fleet.health.record import HealthRecord
from services.kernel.llm.route_opening import HEALTH
from services.kernel.provisioning.pausing import Paused, paused_services, until_words

_SAME_S: Final = 0.002
"""The server keeps the end of a pause in other units than we do."""

State = Literal["closed", "half-open", "open", "cooling down"]


@dataclass(frozen=True)
class RouteHealth:
    """One model at one provider. `state` is its circuit breaker's, or that of a pause that the
    provider asked for. `stages`: whom it concerns; all of them when it names none.

    `until` and `reason` are None while it is closed; `learned_requests_per_minute` is None while
    no limit had to be found.
    """

    model: str
    provider: str
    state: State
    until: datetime | None
    reason: str | None
    stages: tuple[str, ...]
    learned_requests_per_minute: float | None

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "until": self.until and self.until.isoformat()}

    def line(self) -> str:
        words = [f"{self.model} at {self.provider}: {self.state}"]
        if self.stages:
            words.append(f"for {', '.join(self.stages)}")
        if self.until is not None and self.state != "half-open":
            words.append(until_words(self.until))
        if self.learned_requests_per_minute is not None:
            words.append(f"(found limit: {self.learned_requests_per_minute:,.0f} calls a minute)")
        return " ".join(words) + (f": {self.reason}" if self.reason else "")


async def provider_health(js: JetStreamContext) -> list[RouteHealth]:
    """Every route that was ever opened, by model and provider. Raises what NATS raises."""
    clock = FleetClock()
    await clock.set(js)
    routes = [health_of(record, clock.now()) async for record in _records(js)]
    return sorted(routes, key=lambda route: (route.model, route.provider))


def health_of(record: HealthRecord, now: float) -> RouteHealth:
    """The worst that there is to tell of a route."""
    limit = record.learned.limit(now) if record.learned.per_minute else 0.0
    circuits: list[tuple[tuple[str, ...], Circuit]] = [((), record.breaker.circuit)]
    circuits += [((stage,), each.circuit) for stage, each in record.refusals.items()]
    stages, circuit = max(
        circuits, key=lambda each: (each[1].state(now) == "open", each[1].open_until)
    )
    state: State = circuit.state(now)
    until, reason = circuit.open_until, circuit.reason
    if state != "open" and now < record.closed_until:
        stages, state, until, reason = (), "cooling down", record.closed_until, record.cause
    return RouteHealth(
        model=record.model,
        provider=record.provider,
        state=state,
        until=datetime.fromtimestamp(until, UTC) if state != "closed" else None,
        reason=reason if state != "closed" else None,
        stages=stages,
        learned_requests_per_minute=round(limit, 1) if limit else None,
    )


def split_pauses(paused: Paused, routes: Iterable[RouteHealth]) -> tuple[Paused, Paused]:
    """The pauses that a person made, and those that wait for a provider to come back.

    A service that waits is paused until the very moment at which its route is tried again.
    """
    ends = [route.until.timestamp() for route in routes if route.until is not None]
    waiting = {
        service: until
        for service, until in paused.items()
        if any(abs(until.timestamp() - end) < _SAME_S for end in ends)
    }
    return {s: until for s, until in paused.items() if s not in waiting}, waiting


async def paused_by_hand(js: JetStreamContext) -> Paused:
    """The services that wait for `cardflow resume` or for the end that a person named."""
    paused = await paused_services(js)
    return split_pauses(paused, await provider_health(js))[0] if paused else paused


def provider_lines(routes: Iterable[RouteHealth], waiting: Paused) -> Iterator[str]:
    """One line a route, and one for the services that wait."""
    for route in routes:
        yield route.line()
    if waiting:
        yield f"waiting for the provider, and going on by themselves: {', '.join(waiting)}"


async def _records(js: JetStreamContext) -> AsyncIterator[HealthRecord]:
    bucket = await js.key_value(topology.FLEET.name)
    try:
        keys = await bucket.keys()
    except NoKeysError:
        return
    for key in filter(lambda key: key.startswith(HEALTH), keys):
        try:
            entry = await bucket.get(key)
            yield HealthRecord.model_validate_json(entry.value or b"{}")
        except (KeyNotFoundError, ValidationError):
            continue  # Gone, or of another version.
