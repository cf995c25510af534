"""The limits of a stage on a real server: shared by its replicas, changed by the command."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from nats.aio.client import Client
from nats.js import JetStreamContext
from pipeline_by_hand import cardflow, until

from services.kernel.fleet.opening import open_fleet
from services.kernel.fleet.pace.limits import Limits
from services.kernel.fleet.pace.pace import Pace
from services.kernel.fleet.pace.stage import open_pace
from services.kernel.metrics import Metrics


@asynccontextmanager
async def replicas(
    nc: Client, js: JetStreamContext, count: int, limits: Limits
) -> AsyncIterator[list[Pace]]:
    """So many replicas of stage1, each with a clock and records of its own."""
    async with AsyncExitStack() as open_:
        paces = []
        for number in range(count):
            fleet, clock = await open_.enter_async_context(open_fleet(nc, js))
            pace = open_pace(
                fleet,
                clock,
                "stage1",
                limits,
                replica=str(number),
                concurrency=16,
                metrics=Metrics("stage1"),
            )
            paces.append(await open_.enter_async_context(pace))
        yield paces


async def said(nats_server: str, *arguments: str, exit_code: int = 0) -> Any:
    result = await cardflow("limits", *arguments, "--nats", nats_server, "--json")
    assert result.exit_code == exit_code, result.output
    return json.loads(result.stdout)


async def test_replicas_share_one_limit_evenly_spaced(nc: Client, js: JetStreamContext) -> None:
    sent: list[float] = []

    async def call(pace: Pace) -> None:
        async with pace.turn(100, "normal") as turn:
            await turn.in_time()
            sent.append(asyncio.get_running_loop().time())

    async with replicas(nc, js, 3, Limits(requests_per_minute=1_200)) as paces:
        await asyncio.gather(*(call(pace) for pace in paces for _ in range(15)))
    # Twenty a second, each at most a quarter of a second late.
    busiest = max(sum(start <= at < start + 1 for at in sent) for start in sent)
    assert busiest <= 26
    assert sent[-1] - sent[0] >= 44 * 0.05 - 0.25


async def test_the_command_shows_what_every_replica_goes_by(
    nats_server: str, nc: Client, js: JetStreamContext
) -> None:
    async with replicas(nc, js, 2, Limits(requests_per_minute=600, calls_in_flight=5)) as paces:
        async with paces[0].turn(120, "normal"), paces[1].turn(80, "normal"):
            pass

        async def both_known() -> bool:
            return bool((await said(nats_server, "stage1"))[0]["replicas"] == 2)

        await until(both_known)
        [stage1, stage2] = await said(nats_server)
    assert stage1["agree"]
    assert stage1["limits"]["requests_per_minute"]["in_force"] == 600
    assert stage1["limits"]["requests_per_minute"]["from"] == "setting"
    assert stage1["limits"]["tokens_per_minute"]["in_force"] == 0
    assert stage1["limits"]["calls_in_flight"]["in_force"] == 5
    assert (stage2["stage"], stage2["replicas"]) == ("stage2", 0)
    assert stage2["limits"]["requests_per_minute"]["in_force"] is None


async def test_what_people_read_names_each_limit_and_where_it_comes_from(
    nats_server: str, nc: Client, js: JetStreamContext
) -> None:
    async with replicas(nc, js, 1, Limits(requests_per_minute=600)):
        done = await cardflow("limits", "stage1", "--tokens", "400000", "--nats", nats_server)
    assert done.exit_code == 0
    rows = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert rows == [
        "stage limit in force now from replicas",
        "stage1 requests a minute 600 0 setting 1",
        "tokens a minute 400,000 0 operator",
        "calls in flight none 0 setting",
    ]


async def test_a_limit_that_is_set_is_in_force_on_all_replicas_when_the_command_returns(
    nats_server: str, nc: Client, js: JetStreamContext
) -> None:
    async with replicas(nc, js, 3, Limits(requests_per_minute=600, tokens_per_minute=9)) as paces:
        [view] = await said(nats_server, "stage1", "--requests", "30", "--in-flight", "2")
        assert (view["replicas"], view["agree"]) == (3, True)
        assert view["limits"]["requests_per_minute"]["in_force"] == 30
        assert view["limits"]["requests_per_minute"]["from"] == "operator"
        assert view["limits"]["tokens_per_minute"] == {"in_force": 9, "from": "setting", "used": 0}
        in_force = Limits(requests_per_minute=30, tokens_per_minute=9, calls_in_flight=2)
        assert [pace._limits() for pace in paces] == [in_force] * 3

        [view] = await said(nats_server, "stage1", "--requests", "0")
        assert view["limits"]["requests_per_minute"]["in_force"] == 0
        assert view["limits"]["requests_per_minute"]["from"] == "operator"
        assert view["limits"]["calls_in_flight"]["in_force"] == 2

        [view] = await said(nats_server, "stage1", "--unset")
        assert view["limits"]["requests_per_minute"]["in_force"] == 600
        in_force = Limits(requests_per_minute=600, tokens_per_minute=9)
        assert [pace._limits() for pace in paces] == [in_force] * 3


async def test_a_limit_is_kept_for_replicas_that_start_later(
    nats_server: str, nc: Client, js: JetStreamContext
) -> None:
    [view] = await said(nats_server, "stage1", "--tokens", "5000")
    assert view["limits"]["tokens_per_minute"]["in_force"] == 5_000
    async with replicas(nc, js, 1, Limits(requests_per_minute=600)) as [pace]:
        assert pace._limits() == Limits(requests_per_minute=600, tokens_per_minute=5_000)


async def test_a_replica_that_ends_is_gone_from_the_record(
    nats_server: str, nc: Client, js: JetStreamContext
) -> None:
    async with replicas(nc, js, 1, Limits(calls_in_flight=4)) as [pace], pace.turn(1, "normal"):
        [view] = await said(nats_server, "stage1")
        assert view["limits"]["calls_in_flight"]["used"] >= 1
    [view] = await said(nats_server, "stage1")
    assert (view["replicas"], view["limits"]["calls_in_flight"]["used"]) == (0, 0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("ingest",), "'ingest' has no limits; the stages are stage1, stage2"),
        (("--requests", "5"), "name the stage to change"),
        (("stage1", "--requests", "-1"), "requests a minute: input should be greater than"),
        (("stage1", "--tokens", "nan"), "tokens a minute: input should be a finite number"),
        (("stage1", "--in-flight", "9999999"), "calls in flight: input should be less than"),
        (("stage1", "--unset", "--requests", "5"), "give it alone"),
    ],
)
async def test_what_can_not_be_a_limit_is_refused(arguments: tuple[str, ...], words: str) -> None:
    result = await cardflow("limits", *arguments, "--nats", "nats://127.0.0.1:9")
    assert result.exit_code == 2
    assert words in result.stderr
