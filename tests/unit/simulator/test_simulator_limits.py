"""Limits a second, storms with odd hints, and headers that tell what is left."""

from __future__ import annotations

from collections import Counter

import httpx
from simulator_calls import INSTANT, PATH, Clock, analysis_call, client_of, stats_of

from services.kernel.llm.retry_after import LONGEST_S, retry_after_s
from services.simulator.app import SimulatorSettings
from services.simulator.storm import HINTS


async def call(client: httpx.AsyncClient) -> httpx.Response:
    return await client.post(PATH, json=analysis_call("책"))


async def test_no_second_holds_more_calls_than_the_limit() -> None:
    clock = Clock()
    begun = clock.now_s
    async with client_of(SimulatorSettings(latency_ms=0, jitter_ms=0, rps=2), clock) as client:
        statuses = []
        for at_s in (0, 0.4, 0.9, 1.1, 1.3, 1.45):
            clock.now_s = begun + at_s
            statuses.append((await call(client)).status_code)
        stats = await stats_of(client)
    assert statuses == [200, 200, 429, 200, 429, 200]
    assert stats["refused"] == {"rps": 2}
    assert stats["rate_limited"] == 2


async def test_a_storm_refuses_every_call_with_hints_of_every_kind_until_it_is_over() -> None:
    async with client_of() as client:
        await client.post("/control", json={"storm": True})
        answers = [await call(client) for _ in range(200)]
        refused = (await stats_of(client))["refused"]
        await client.post("/control", json={"storm": False})
        assert (await call(client)).status_code == 200
    assert {answer.status_code for answer in answers} == {429}
    assert set(refused) == {f"storm_{kind}" for kind in HINTS}
    now = Clock()()
    waits = Counter(retry_after_s(answer.headers, now=now) for answer in answers)
    assert set(waits) == {None, 2.0, LONGEST_S}


async def test_the_same_seed_gives_the_same_storm() -> None:
    storms = []
    for _ in range(2):
        async with client_of(SimulatorSettings(storm=True, seed=3)) as client:
            storms.append([dict((await call(client)).headers) for _ in range(30)])
    assert storms[0] == storms[1]


async def test_answers_tell_what_is_left_only_when_they_are_told_to() -> None:
    names = ("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset")
    clock = Clock()
    settings = SimulatorSettings(latency_ms=0, jitter_ms=0, rpm=2, rate_headers=True)
    async with client_of(settings, clock) as client:
        headers = [(await call(client)).headers for _ in range(2)]
    told = [tuple(answer.get(name) for name in names) for answer in headers]
    now_ms = int(clock.now_s * 1000)
    assert told == [("2", "1", str(now_ms)), ("2", "0", str(now_ms + 60_000))]
    async with client_of(INSTANT) as client:
        assert names[0] not in (await call(client)).headers
