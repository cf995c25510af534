"""Records that all replicas change and follow, and their common clock, on a real server."""

from __future__ import annotations

import asyncio
import time

import pytest
from delivering import eventually
from nats.aio.client import Client
from nats.js import JetStreamContext

from services.kernel import topology
from services.kernel.contracts.base import Contract
from services.kernel.errors import Outage
from services.kernel.fleet.clock import FleetClock
from services.kernel.fleet.records import Fleet


class Tally(Contract):
    count: int = 0


def one_more(tally: Tally) -> Tally:
    return Tally(count=tally.count + 1)


async def fleet(nc: Client, js: JetStreamContext) -> Fleet:
    return Fleet(await js.key_value(topology.FLEET.name), nc)


async def test_no_change_is_lost_when_many_change_one_record(
    nc: Client, js: JetStreamContext
) -> None:
    records = [(await fleet(nc, js)).record("tally", Tally()) for _ in range(8)]
    await asyncio.gather(*(record.change(one_more) for record in records * 5))
    assert await records[0].load() == Tally(count=40)


async def test_who_follows_hears_what_others_write(nc: Client, js: JetStreamContext) -> None:
    ours, heard = await fleet(nc, js), asyncio.Event()
    followed = await ours.followed("tally", Tally(), heard.set)
    assert followed.value == Tally()
    following = asyncio.create_task(ours.follow())
    await (await fleet(nc, js)).record("tally", Tally()).change(one_more)
    async with asyncio.timeout(5):
        await heard.wait()
    assert followed.value == Tally(count=1)
    following.cancel()


async def test_what_was_not_heard_is_read_all_the_same(
    nc: Client, js: JetStreamContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.kernel.fleet.records._READ_AGAIN_S", 0.01)
    ours = await fleet(nc, js)
    monkeypatch.setattr(ours, "_hear", None)
    followed = await ours.followed("tally", Tally())
    following = asyncio.create_task(ours.follow())
    await (await fleet(nc, js)).record("tally", Tally()).change(one_more)
    await eventually(lambda: followed.value == Tally(count=1))
    following.cancel()


async def test_a_bucket_that_is_away_is_followed_again_when_it_is_back(
    nc: Client, js: JetStreamContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.kernel.fleet.records._READ_AGAIN_S", 0.01)
    ours = await fleet(nc, js)
    followed = await ours.followed("tally", Tally())
    following = asyncio.create_task(ours.follow())
    config = (await js.stream_info(f"KV_{topology.FLEET.name}")).config
    await js.delete_stream(f"KV_{topology.FLEET.name}")
    with pytest.raises(Outage, match="tally"):
        await followed.change(one_more)
    await js.add_stream(config)
    await (await fleet(nc, js)).record("tally", Tally()).change(one_more)
    await eventually(lambda: followed.value == Tally(count=1))
    following.cancel()


async def test_the_clock_is_the_servers_whatever_this_machine_believes(
    js: JetStreamContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as wrong:
        wrong.setattr(time, "time", lambda: 0.0)
        clock = FleetClock()
    assert clock.now() < 60
    await clock.set(js)
    assert abs(clock.now() - time.time()) < 5


async def test_the_clock_is_looked_at_again(
    js: JetStreamContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.kernel.fleet.clock._AGAIN_S", 0.01)
    with monkeypatch.context() as wrong:
        wrong.setattr(time, "time", lambda: 0.0)
        clock = FleetClock()
    keeping = asyncio.create_task(clock.keep(js))
    await eventually(lambda: clock.now() > 1_000)
    keeping.cancel()
