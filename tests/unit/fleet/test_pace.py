"""A fleet of replicas keeps a stage's limits together, whoever comes, goes, and dies."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
from fleet.paced_fleet import PacedFleet, busiest_minute, tokens_of_busiest_minute
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.pace_fakes import free_pace

from services.kernel.fleet.pace.limits import Limits
from services.kernel.fleet.pace.pace import PaceTurn

Open = Callable[..., PacedFleet]


@pytest.fixture
def fleet_of() -> Iterator[Open]:
    opened: list[PacedFleet] = []

    def open_fleet(limits: Limits | None = None, **options: Any) -> PacedFleet:
        opened.append(PacedFleet(limits or Limits(), **options))
        return opened[-1]

    yield open_fleet
    for fleet in opened:
        fleet.end()


def spacing(times: list[float]) -> set[float]:
    return {round(after - before, 2) for before, after in pairwise(times)}


def test_four_replicas_use_a_limit_fully_and_never_pass_it(fleet_of: Open) -> None:
    fleet = fleet_of(Limits(requests_per_minute=600))
    for name in "abcd":
        replica = fleet.start(name)
        for _ in range(500):
            fleet.call(replica, lasting_s=0.2)
    fleet.run_for(120)
    assert busiest_minute(fleet.times) <= 600
    assert len(fleet.calls) >= 0.98 * 1200
    assert spacing(fleet.times[10:]) == {0.1}


def test_replicas_that_come_and_are_killed_neither_pass_a_limit_nor_leave_it_unused(
    fleet_of: Open,
) -> None:
    fleet = fleet_of(Limits(requests_per_minute=600))
    first = fleet.start("a")
    for _ in range(2_000):
        fleet.call(first, lasting_s=0.1)
    fleet.run_for(30)
    for name in "bcd":
        replica = fleet.start(name)
        for _ in range(500):
            fleet.call(replica, lasting_s=0.1)
    fleet.run_for(45)
    for name in "bcd":
        fleet.replicas[name].die()
    fleet.run_for(45)
    assert busiest_minute(fleet.times) <= 600
    assert len(fleet.calls) >= 0.98 * 1200


@settings(deadline=None, max_examples=20)
@given(
    per_minute=st.integers(1, 300),
    replicas=st.integers(1, 4),
    bursts=st.lists(
        st.tuples(st.floats(0, 100), st.integers(0, 3), st.integers(1, 60)), min_size=1, max_size=8
    ),
    latency_s=st.sampled_from([0.0, 0.003, 0.1]),
    held_up_s=st.sampled_from([0.0, 0.01, 0.2, 3.0]),
    killed=st.lists(st.tuples(st.floats(0, 150), st.integers(1, 3)), max_size=2),
    seed=st.integers(0, 1_000),
)
def test_no_minute_holds_more_than_the_limit_however_the_calls_come(
    per_minute: int,
    replicas: int,
    bursts: list[tuple[float, int, int]],
    latency_s: float,
    held_up_s: float,
    killed: list[tuple[float, int]],
    seed: int,
) -> None:
    """Each tenth call is held up between its turn and being sent, all those of a time together."""
    fleet = PacedFleet(Limits(requests_per_minute=per_minute), latency_s=latency_s, seed=seed)
    names = [str(number) for number in range(replicas)]
    for name in names:
        fleet.start(name)

    async def hold_up(_turn: PaceTurn) -> None:
        now = fleet.loop.time()
        await asyncio.sleep(held_up_s - now % held_up_s if held_up_s else 0)

    for at_s, number, calls in bursts:
        for call in range(calls):
            fleet.call(
                fleet.replicas[names[number % replicas]],
                in_s=at_s,
                lasting_s=0.1,
                before_sending=hold_up if call % 10 == 0 else None,
            )
    for at_s, number in killed:
        if number < replicas:
            fleet.loop.call_later(at_s, fleet.replicas[names[number]].die)
    fleet.run_for(200)
    fleet.end()
    assert busiest_minute(fleet.times) <= per_minute


@settings(deadline=None, max_examples=5)
@given(
    per_minute=st.integers(2, 300),
    replicas=st.integers(1, 4),
    latency_s=st.sampled_from([0.001, 0.02]),
    seed=st.integers(0, 1_000),
)
def test_while_somebody_waits_the_limit_is_used(
    per_minute: int, replicas: int, latency_s: float, seed: int
) -> None:
    fleet = PacedFleet(Limits(requests_per_minute=per_minute), latency_s=latency_s, seed=seed)
    for number in range(replicas):
        replica = fleet.start(str(number))
        for _ in range(2 * per_minute):
            fleet.call(replica, lasting_s=0.05)
    fleet.run_for(90)
    fleet.end()
    times = fleet.times
    rate = (len(times) - 1) / (times[-1] - times[0]) * 60
    assert rate >= 0.98 * per_minute
    assert times[-1] > 1_090 - 2 * 60 / per_minute


def test_an_idle_limit_saves_no_permits_up(fleet_of: Open) -> None:
    fleet = fleet_of(Limits(requests_per_minute=60), latency_s=0)
    replica = fleet.start("a")
    for _ in range(3):
        fleet.call(replica, in_s=600)
    fleet.run_for(700)
    assert [round(at - 1_000) for at in fleet.times] == [600, 601, 602]


def test_calls_that_were_held_up_together_are_not_sent_together(fleet_of: Open) -> None:
    fleet = fleet_of(Limits(requests_per_minute=600), latency_s=0)
    replica = fleet.start("a")
    released = asyncio.Event()

    async def hold_up(_turn: PaceTurn) -> None:
        await released.wait()

    for _ in range(16):
        fleet.call(replica, before_sending=hold_up)
    fleet.run_for(10)
    assert fleet.calls == []
    fleet.loop.call_soon(released.set)
    fleet.run_for(10)
    assert len(fleet.calls) == 16
    assert spacing(fleet.times) == {0.1}


def test_without_limits_turns_are_given_at_once_and_nothing_is_written_for_them(
    fleet_of: Open,
) -> None:
    fleet = fleet_of()
    replica = fleet.start("a", concurrency=300)
    for _ in range(300):
        fleet.call(replica, in_s=1, lasting_s=0.1)
    fleet.run_for(4)
    assert {round(at, 3) for at in fleet.times} == {1_001.0}
    assert fleet.bucket.writes == 1, "one sign of life"


def test_a_replica_makes_no_more_calls_at_once_than_its_concurrency(fleet_of: Open) -> None:
    fleet = fleet_of()
    replica = fleet.start("a", concurrency=3)
    for _ in range(9):
        fleet.call(replica, lasting_s=1)
    fleet.run_for(10)
    assert fleet.most_in_flight == 3
    assert [round(at - 1_000) for at in fleet.times] == [0] * 3 + [1] * 3 + [2] * 3


async def test_a_slot_is_free_as_soon_as_the_call_is_over() -> None:
    pace = free_pace(lambda: 0.0, concurrency=1)
    async with pace.turn(1, "normal") as first:
        first.over()
        async with pace.turn(1, "normal"):
            assert pace._giving.active == 1
    assert pace._giving.active == 0


def test_urgent_calls_go_first_and_bulk_is_not_starved(fleet_of: Open) -> None:
    fleet = fleet_of(Limits(requests_per_minute=60), latency_s=0)
    replica = fleet.start("a")
    for _ in range(20):
        fleet.call(replica, priority="bulk", lasting_s=0)
    for _ in range(5):
        fleet.call(replica, priority="normal", in_s=0.001, lasting_s=0)
    for _ in range(40):
        fleet.call(replica, priority="urgent", in_s=0.002, lasting_s=0)
    fleet.run_for(100)
    order = [call.priority for call in fleet.calls]
    assert order[1:9] == ["urgent"] * 8
    assert order.count("bulk") == 20
    assert [place for place in range(9, 49) if order[place] == "bulk"] == [9, 19, 29, 39]
    assert order[45:51] == [*["normal"] * 4, "bulk", "normal"]


def test_a_call_that_is_cancelled_while_it_waits_takes_no_turn(fleet_of: Open) -> None:
    fleet = fleet_of(Limits(requests_per_minute=60), latency_s=0)
    replica = fleet.start("a", concurrency=2)
    for _ in range(6):
        fleet.call(replica, lasting_s=0.1)
    fleet.run_for(0.5)
    for caller in replica.callers[1:5]:
        caller.cancel()
    fleet.run_for(5)
    assert [round(at - 1_000) for at in fleet.times] == [0, 1]
    assert replica.pace._giving.active == 0


def test_changed_limits_are_in_force_within_seconds(fleet_of: Open) -> None:
    fleet = fleet_of(Limits(requests_per_minute=6))
    replicas = [fleet.start(name) for name in "ab"]
    for replica in replicas:
        for _ in range(400):
            fleet.call(replica, lasting_s=0)
    fleet.run_for(31)
    assert len(fleet.calls) == 4
    fleet.change_limits(Limits(requests_per_minute=600))
    fleet.run_for(10)
    assert 4 + 10 * 9 <= len(fleet.calls) <= 4 + 101
    fleet.change_limits(Limits(requests_per_minute=60))
    fleet.run_for(7)  # What was taken ahead at the higher limit is made up for.
    before = len(fleet.calls)
    fleet.run_for(10)
    assert 9 <= len(fleet.calls) - before <= 10
    fleet.change_limits(Limits())
    fleet.run_for(2)
    assert len(fleet.calls) == 800


def test_tokens_a_minute_are_kept_by_estimate_and_used_up_by_what_is_settled(
    fleet_of: Open,
) -> None:
    fleet = fleet_of(Limits(tokens_per_minute=60_000))
    for name in "ab":
        replica = fleet.start(name)
        for _ in range(500):
            fleet.call(replica, tokens=500, used=150, lasting_s=0.3)
    fleet.run_for(120)
    assert tokens_of_busiest_minute(fleet.calls) <= 60_000 + 500
    last = fleet.calls[-1].at
    steady = [call for call in fleet.calls if last - 60 < call.at <= last]
    assert sum(call.tokens for call in steady) >= 0.98 * 60_000


def test_who_uses_more_tokens_than_estimated_makes_the_others_wait(fleet_of: Open) -> None:
    fleet = fleet_of(Limits(tokens_per_minute=6_000), latency_s=0)
    replica = fleet.start("a")
    fleet.call(replica, tokens=100, used=1_100, lasting_s=0.1)
    for _ in range(3):
        fleet.call(replica, tokens=100, in_s=0.2, lasting_s=0.1)
    fleet.run_for(30)
    # 1,100 tokens are 11 seconds' worth.
    assert [round(at - 1_000) for at in fleet.times] == [0, 11, 12, 13]


def test_usage_that_is_not_told_leaves_the_estimate(fleet_of: Open) -> None:
    fleet = fleet_of(Limits(tokens_per_minute=6_000), latency_s=0)
    replica = fleet.start("a")
    for _ in range(3):
        fleet.call(replica, tokens=200, used=0, lasting_s=0.1)
    fleet.run_for(30)
    assert [round(at - 1_000) for at in fleet.times] == [0, 2, 4]


def test_requests_and_tokens_bind_together(fleet_of: Open) -> None:
    """Small and large calls in turn: each limit alone would allow 600 calls a minute."""
    fleet = fleet_of(Limits(requests_per_minute=600, tokens_per_minute=60_600))
    replica = fleet.start("a")
    for number in range(1_200):
        fleet.call(replica, tokens=50 if number % 2 else 150, lasting_s=0.1)
    fleet.run_for(90)
    assert busiest_minute(fleet.times) <= 600
    assert tokens_of_busiest_minute(fleet.calls) <= 60_600 + 150
    assert len(fleet.calls) >= 0.98 * 900


def test_calls_in_flight_are_shared_fairly_and_all_used(fleet_of: Open) -> None:
    fleet = fleet_of(Limits(calls_in_flight=10))
    first = fleet.start("a")
    for _ in range(400):
        fleet.call(first, lasting_s=1)
    fleet.run_for(10)
    assert len(fleet.calls) >= 95
    second = fleet.start("b")
    for _ in range(400):
        fleet.call(second, lasting_s=1)
    fleet.run_for(3)
    before = len(fleet.calls)
    fleet.run_for(10)
    recent = [call.replica for call in fleet.calls[before:]]
    assert len(recent) >= 95
    assert recent.count("b") == pytest.approx(len(recent) / 2, rel=0.1)
    assert fleet.most_in_flight == 10


def test_fifty_calls_in_flight_of_one_second_are_fifty_calls_a_second(fleet_of: Open) -> None:
    fleet = fleet_of(Limits(calls_in_flight=50))
    replica = fleet.start("a", concurrency=100)
    for _ in range(500):
        fleet.call(replica, lasting_s=1)
    fleet.run_for(12)
    assert fleet.most_in_flight == 50
    assert 450 / (fleet.times[-1] - fleet.times[0]) >= 0.98 * 50


def test_slots_that_one_replica_needs_no_more_go_to_the_other_at_once(fleet_of: Open) -> None:
    fleet = fleet_of(Limits(calls_in_flight=8))
    first, second = fleet.start("a"), fleet.start("b")
    for _ in range(8):
        fleet.call(first, lasting_s=2)
    for _ in range(24):
        fleet.call(second, in_s=0.5, lasting_s=1)
    fleet.run_for(1.9)
    assert len(fleet.calls) == 8
    fleet.run_for(3.6)
    assert len(fleet.calls) == 32
    assert fleet.most_in_flight == 8


def test_slots_of_a_dead_replica_come_back(fleet_of: Open) -> None:
    fleet = fleet_of(Limits(calls_in_flight=4))
    first, second = fleet.start("a"), fleet.start("b")
    for _ in range(4):
        fleet.call(first, lasting_s=100)
    fleet.run_for(7)
    first.die()
    fleet.in_flight = 0
    for _ in range(4):
        fleet.call(second, lasting_s=100)
    fleet.run_for(8)
    assert len(fleet.calls) == 4
    fleet.run_for(9)
    assert len(fleet.calls) == 8


def test_more_replicas_than_slots_starve_none_of_them(fleet_of: Open) -> None:
    fleet = fleet_of(Limits(calls_in_flight=2))
    for name in "abcd":
        replica = fleet.start(name)
        for _ in range(400):
            fleet.call(replica, lasting_s=0.5)
    fleet.run_for(120)
    assert fleet.most_in_flight == 2
    assert len(fleet.calls) >= 0.9 * 480
    assert all(sum(c.replica == name for c in fleet.calls) >= 40 for name in "abcd")


@pytest.mark.parametrize("kind", ["away", "hangs"])
def test_while_the_record_is_away_each_replica_keeps_to_its_share(
    fleet_of: Open, kind: str
) -> None:
    fleet = fleet_of(Limits(requests_per_minute=600))
    for name in "abc":
        replica = fleet.start(name)
        for _ in range(900):
            fleet.call(replica, lasting_s=0.1)
    fleet.run_for(40)
    setattr(fleet.bucket, "is_away" if kind == "away" else "hangs", True)
    fleet.run_for(40)
    fleet.bucket.is_away = fleet.bucket.hangs = False
    fleet.run_for(40)
    assert busiest_minute(fleet.times) <= 601
    assert len(fleet.calls) >= 0.97 * 1200
    away = [call.replica for call in fleet.calls if 1_045 < call.at < 1_080]
    assert all(away.count(name) == pytest.approx(len(away) / 3, abs=2) for name in "abc")


def test_a_record_that_can_not_be_read_stops_nobody(fleet_of: Open) -> None:
    fleet = fleet_of(Limits(requests_per_minute=60))
    replica = fleet.start("a")
    fleet.run_for(1)
    entry = fleet.bucket.entries["pace.stage1"]
    entry.value = b'{"replicas": 7}'
    replica.pace._taking._record._revision = None
    for _ in range(5):
        fleet.call(replica)
    fleet.run_for(20)
    assert len(fleet.calls) == 5


def test_the_fleet_knows_how_many_turns_it_was_given(fleet_of: Open) -> None:
    for limits in (Limits(), Limits(requests_per_minute=600)):
        fleet = fleet_of(limits)
        first, second = fleet.start("a"), fleet.start("b")
        for number in range(100):
            fleet.call(first if number % 3 else second, in_s=10, lasting_s=0)
        fleet.run_for(30)
        fleet.loop.run_until_complete(second.pace._taking._record.load())
        assert second.pace.granted(60) == 100
        assert second.pace.granted(1) == 0
        fleet.run_for(60)
        assert second.pace.granted(60) == 0


def test_a_server_clock_that_is_set_back_stops_nobody(fleet_of: Open) -> None:
    fleet = fleet_of(Limits(requests_per_minute=60), latency_s=0)
    replica = fleet.start("a")
    for _ in range(10):
        fleet.call(replica, lasting_s=0)
    fleet.run_for(3)
    replica.pace._clock._offset_s -= 3_600
    fleet.run_for(10)
    assert len(fleet.calls) == 10


def test_who_ends_gives_back_what_it_holds(fleet_of: Open) -> None:
    fleet = fleet_of(Limits(calls_in_flight=4))
    first, second = fleet.start("a"), fleet.start("b")
    for _ in range(4):
        fleet.call(first, lasting_s=1)
    fleet.run_for(2)
    first.keeping.cancel()
    for _ in range(4):
        fleet.call(second, lasting_s=1)
    fleet.run_for(1)
    assert len(fleet.calls) == 8
