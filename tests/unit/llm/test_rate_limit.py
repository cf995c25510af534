"""The rate limit under a clock of its own: even spacing, pauses for everybody, first come first."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Sequence
from contextlib import suppress
from itertools import count, cycle, pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from services.kernel.llm.rate_limit import RateLimit

START = 5_000.0
ROUNDING_S = 1e-6


class VirtualTime:
    """Time that moves from wake-up to wake-up; each sleeper may oversleep, like a busy loop."""

    def __init__(self, oversleeping: Sequence[float] = (0.0,)) -> None:
        self.now = START
        self._oversleeping = cycle(oversleeping)
        self._order = count()
        self._sleepers: list[tuple[float, int, asyncio.Event]] = []

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        awake = asyncio.Event()
        at = self.now + seconds + next(self._oversleeping)
        heapq.heappush(self._sleepers, (at, next(self._order), awake))
        await awake.wait()

    async def run(self, limit: int = 100_000) -> None:
        """Until nobody sleeps any more."""
        await _settle()
        while self._sleepers:
            limit -= 1
            assert limit, "somebody sleeps forever"
            at, _, awake = heapq.heappop(self._sleepers)
            self.now = max(self.now, at)
            awake.set()
            await _settle()


async def _settle() -> None:
    """Lets every task run until it waits for time."""
    for _ in range(6):
        await asyncio.sleep(0)


class Traffic:
    """Callers that arrive at given times, and when each was let through."""

    def __init__(self, per_minute: int, oversleeping: Sequence[float] = (0.0,)) -> None:
        self.time = VirtualTime(oversleeping)
        self.limit = RateLimit(per_minute, clock=self.time.clock, sleep=self.time.sleep)
        self.permits: list[tuple[float, str]] = []
        self.pauses: list[tuple[float, float]] = []
        self._tasks: list[asyncio.Task[None]] = []

    def arrive(self, name: str, at_s: float = 0.0) -> asyncio.Task[None]:
        task = asyncio.create_task(self._call(name, at_s))
        self._tasks.append(task)
        return task

    async def _call(self, name: str, at_s: float) -> None:
        if at_s:
            await self.time.sleep(at_s)
        await self.limit.permit()
        self.permits.append((self.time.now - START, name))

    def cool_down(self, wait_s: float, *, at_s: float) -> None:
        async def cool() -> None:
            await self.time.sleep(at_s)
            self.limit.cool_down(wait_s)
            begun = self.time.now - START
            self.pauses.append((begun, begun + wait_s))

        self._tasks.append(asyncio.create_task(cool()))

    async def run(self) -> list[float]:
        await self.time.run()
        for task in self._tasks:
            with suppress(asyncio.CancelledError):
                await task
        return [at for at, _ in self.permits]


def busiest_minute(permits: Sequence[float]) -> int:
    return max(sum(start <= at < start + 60 - ROUNDING_S for at in permits) for start in permits)


def spacing(permits: Sequence[float]) -> list[float]:
    return [round(after - before, 6) for before, after in pairwise(permits)]


async def test_permits_are_spaced_evenly_however_many_come_at_once() -> None:
    traffic = Traffic(60)
    for n in range(5):
        traffic.arrive(str(n))
    assert await traffic.run() == [0, 1, 2, 3, 4]


async def test_an_idle_limit_saves_no_permits_up() -> None:
    traffic = Traffic(60)
    traffic.arrive("early")
    for n in range(3):
        traffic.arrive(str(n), at_s=600)
    assert await traffic.run() == [0, 600, 601, 602]


async def test_who_comes_first_goes_first() -> None:
    traffic = Traffic(60)
    for name in "abcdef":
        traffic.arrive(name)
    await traffic.run()
    assert "".join(name for _, name in traffic.permits) == "abcdef"


async def test_no_limit_lets_everybody_through_at_once() -> None:
    traffic = Traffic(0)
    for n in range(100):
        traffic.arrive(str(n))
    assert await traffic.run() == [0] * 100


@pytest.mark.parametrize("per_minute", [0, 60, 6_000])
async def test_a_pause_holds_everybody(per_minute: int) -> None:
    traffic = Traffic(per_minute)
    traffic.limit.cool_down(30)
    for n in range(20):
        traffic.arrive(str(n))
    traffic.arrive("late", at_s=29)
    assert min(await traffic.run()) == 30


async def test_a_pause_holds_those_who_wait_already() -> None:
    traffic = Traffic(60)
    for n in range(4):
        traffic.arrive(str(n))
    traffic.cool_down(30, at_s=0.5)
    assert await traffic.run() == [0, 30.5, 31.5, 32.5]


async def test_who_waited_through_a_pause_goes_on_evenly_and_not_in_a_burst() -> None:
    traffic = Traffic(60)
    for n in range(100):
        traffic.arrive(str(n))
    traffic.cool_down(120, at_s=0.5)
    permits = await traffic.run()
    assert set(spacing(permits[1:])) == {1.0}


async def test_a_shorter_pause_does_not_end_a_longer_one() -> None:
    traffic = Traffic(0)
    traffic.limit.cool_down(60)
    traffic.limit.cool_down(5)
    traffic.arrive("a")
    assert await traffic.run() == [60]


async def test_a_pause_named_during_a_pause_makes_it_longer() -> None:
    traffic = Traffic(0)
    traffic.limit.cool_down(10)
    traffic.cool_down(10, at_s=9)
    traffic.arrive("a")
    assert await traffic.run() == [19]


async def test_who_is_cancelled_while_waiting_takes_no_permit() -> None:
    traffic = Traffic(60)
    traffic.arrive("a")
    cancelled = traffic.arrive("b")
    queued = traffic.arrive("c")
    traffic.arrive("d")
    await _settle()
    cancelled.cancel()
    queued.cancel()
    await traffic.run()
    assert traffic.permits == [(0, "a"), (1, "d")]


async def test_who_oversleeps_is_made_up_for_by_one_permit_at_most() -> None:
    traffic = Traffic(60, oversleeping=[10.0, 0.0, 0.0, 0.0])
    for n in range(4):
        traffic.arrive(str(n))
    assert await traffic.run() == [0, 11, 11, 12]


moments = st.floats(0, 150, allow_nan=False).map(lambda value: round(value, 2))
pauses = st.tuples(moments, st.floats(0.1, 90).map(lambda value: round(value, 2)))


@settings(deadline=None)
@given(
    per_minute=st.integers(1, 30),
    arrivals=st.lists(moments, min_size=1, max_size=90),
    oversleeping=st.lists(st.sampled_from([0.0, 0.01, 1.0, 7.5]), min_size=1, max_size=4),
    coolings=st.lists(pauses, max_size=3),
)
@example(per_minute=30, arrivals=[0.0] * 90, oversleeping=[0.0], coolings=[(0.5, 60.0)])
@example(per_minute=30, arrivals=[0.0] * 90, oversleeping=[7.5, 0.0], coolings=[])
def test_no_minute_holds_more_than_the_limit_and_one_and_no_pause_holds_any(
    per_minute: int,
    arrivals: list[float],
    oversleeping: list[float],
    coolings: list[tuple[float, float]],
) -> None:
    async def run() -> Traffic:
        traffic = Traffic(per_minute, oversleeping)
        for at_s in arrivals:
            traffic.arrive("", at_s)
        for at_s, wait_s in coolings:
            traffic.cool_down(wait_s, at_s=at_s)
        await traffic.run()
        return traffic

    traffic = asyncio.run(run())
    permits = [at for at, _ in traffic.permits]
    assert len(permits) == len(arrivals)
    assert busiest_minute(permits) <= per_minute + 1
    for start, end in traffic.pauses:
        assert not [at for at in permits if start + ROUNDING_S < at < end - ROUNDING_S]
