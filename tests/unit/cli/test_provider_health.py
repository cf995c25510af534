"""What `cardflow status` says of the providers."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from services.cli.machine.provider_health import (
    RouteHealth,
    health_of,
    provider_lines,
    split_pauses,
)
from services.kernel.fleet.health.breaker import Breaker, BreakerRules
from services.kernel.fleet.health.learning import Learned
from services.kernel.fleet.health.record import HealthRecord
from services.kernel.fleet.health.refusals import Refusals

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC).timestamp()


def record(**parts: Any) -> HealthRecord:
    return HealthRecord(model="good/model", provider="openrouter", **parts)


def opened(now: float = NOW) -> Breaker:
    breaker = Breaker()
    for _ in range(8):
        breaker = breaker.failure(now, now, "502", 0.0, BreakerRules())
    return breaker


def refused() -> Refusals:
    refusals = Refusals()
    for question in "abc":
        refusals = refusals.refused(question, NOW, NOW, "no model", 0.0)
    return refusals


LINES: list[tuple[HealthRecord, str]] = [
    (record(), "good/model at openrouter: closed"),
    (
        record(breaker=opened()),
        "good/model at openrouter: open until 2026-05-04 12:00:05 UTC: 502",
    ),
    (record(breaker=opened(NOW - 6)), "good/model at openrouter: half-open: 502"),
    (
        record(closed_until=NOW + 30, cause="429"),
        "good/model at openrouter: cooling down until 2026-05-04 12:00:30 UTC: 429",
    ),
    (record(closed_until=NOW - 1, cause="429"), "good/model at openrouter: closed"),
    (
        record(refusals={"stage1": Refusals(), "stage2": refused()}),
        "good/model at openrouter: open for stage2 until 2026-05-04 12:00:30 UTC: no model",
    ),
    (
        record(learned=Learned(since=NOW - 10, per_minute=1_200)),
        "good/model at openrouter: closed (found limit: 1,200 calls a minute)",
    ),
]


@pytest.mark.parametrize(("record_", "line"), LINES, ids=[line for _, line in LINES])
def test_a_route_in_one_line(record_: HealthRecord, line: str) -> None:
    assert health_of(record_, NOW).line() == line


def test_as_json_an_open_route_names_its_end_and_a_closed_one_nothing() -> None:
    assert health_of(record(breaker=opened()), NOW).as_json() == {
        "model": "good/model",
        "provider": "openrouter",
        "state": "open",
        "until": "2026-05-04T12:00:05+00:00",
        "reason": "502",
        "stages": (),
        "learned_requests_per_minute": None,
    }
    closed = health_of(record(), NOW).as_json()
    assert (closed["until"], closed["reason"]) == (None, None)


def test_a_pause_that_ends_with_the_breaker_s_opening_is_the_breaker_s() -> None:
    route = health_of(record(breaker=opened()), NOW)
    at = datetime.fromtimestamp(NOW + 5, UTC)
    by_hand = datetime.fromtimestamp(NOW + 5.01, UTC)
    paused, waiting = split_pauses({"stage1": at, "stage2": by_hand}, [route])
    assert (paused, waiting) == ({"stage2": by_hand}, {"stage1": at})


def test_who_waits_is_told_after_the_routes() -> None:
    routes: list[RouteHealth] = [health_of(record(), NOW)]
    assert list(provider_lines(routes, {})) == [routes[0].line()]
    at = datetime.fromtimestamp(NOW, UTC)
    assert list(provider_lines([], {"stage1": at})) == [
        "waiting for the provider, and going on by themselves: stage1"
    ]
