"""What a replica knows of a route, tells the others, and is told by them."""

from __future__ import annotations

import asyncio

from asking_fakes import FakeTime, until
from unit.pace_fakes import MemoryBucket
from unit.route_fakes import health_on

from services.kernel.fleet.health.record import HealthRecord


async def test_what_is_reported_holds_here_at_once_and_is_written_in_the_background() -> None:
    bucket, time = MemoryBucket(), FakeTime()
    health = health_on(bucket, time.clock)
    health.cool_down(5, "429")
    assert not health.admits("")
    assert bucket.writes == 0
    keeping = asyncio.create_task(health.keep())
    await until(lambda: bucket.writes == 1)
    other = health_on(bucket, time.clock)
    await other._record.load()
    assert not other.admits("")
    assert not health._pending
    keeping.cancel()


async def test_many_reports_are_one_write() -> None:
    bucket, time = MemoryBucket(), FakeTime()
    health = health_on(bucket, time.clock)
    for _ in range(7):
        health.failed(time.now, "502")
    await health._write()
    assert bucket.writes == 1
    assert health.view.breaker.in_a_row == 7


async def test_failures_of_two_replicas_that_write_at_once_all_count() -> None:
    bucket, time = MemoryBucket(), FakeTime()
    one, two = health_on(bucket, time.clock), health_on(bucket, time.clock)
    for health in (one, two):
        await health._record.load()
        for _ in range(4):
            health.failed(time.now, "502")
    await asyncio.gather(one._write(), two._write())
    assert two.state() == "open"


async def test_answers_are_not_written_while_nothing_is_wrong() -> None:
    bucket, time = MemoryBucket(), FakeTime()
    health = health_on(bucket, time.clock)
    for _ in range(1_000):
        health.answered(time.now)
    assert not health._pending


async def test_while_failures_are_counted_answers_are_written_once_a_second() -> None:
    bucket, time = MemoryBucket(), FakeTime()
    health = health_on(bucket, time.clock)
    health.failed(time.now, "502")
    for _ in range(100):
        time.now += 0.1
        health.answered(time.now)
    assert len(health._pending) <= 1 + 12
    assert 80 <= health.view.breaker.calls <= 101
    assert health.view.breaker.in_a_row == 0


async def test_what_can_not_be_written_is_written_later() -> None:
    bucket, time = MemoryBucket(), FakeTime()
    health = health_on(bucket, time.clock)
    health.cool_down(5, "429")
    bucket.is_away = True
    keeping = asyncio.create_task(health.keep())
    await until(lambda: not health._wanted.is_set())
    bucket.is_away = False
    assert health._pending
    await health._write()
    assert HealthRecord.model_validate_json(bucket.entries["health.first"].value or b"").cause
    keeping.cancel()


async def test_every_kind_of_event_survives_the_wire() -> None:
    bucket, time = MemoryBucket(), FakeTime()
    health = health_on(bucket, time.clock)
    health.cool_down(5, "429")
    health.blocked(time.now, 30, "401")
    health.limited(time.now, 5, lambda _last_s: 12)
    await health.refused("a question", time.now, "400")
    again = health_on(bucket, time.clock)
    assert await again._record.load() == health.view


def test_a_record_of_a_newer_version_is_read_as_far_as_it_is_known() -> None:
    assert HealthRecord.model_validate_json(b'{"model": "m", "mood": "fine"}').model == "m"
