"""However many are at work at once, the pace is kept."""

from __future__ import annotations

import asyncio

import pytest

from services.cli.letters.pacing import Pace


class Time:
    """A clock that sleeping moves."""

    def __init__(self) -> None:
        self.now = 100.0

    async def sleep(self, delay_s: float) -> None:
        until = self.now + delay_s
        await asyncio.sleep(0)
        self.now = max(self.now, until)


@pytest.mark.parametrize("at_once", [1, 7, 100])
async def test_turns_are_an_interval_apart(at_once: int) -> None:
    time = Time()
    pace = Pace(10, clock=lambda: time.now, sleep=time.sleep)
    at_work = asyncio.Semaphore(at_once)
    begun: list[float] = []

    async def one() -> None:
        async with at_work:
            await pace.turn()
            begun.append(time.now)

    await asyncio.gather(*(one() for _ in range(100)))
    assert begun == [pytest.approx(100 + number / 10) for number in range(100)]


async def test_time_that_nobody_used_is_not_made_up() -> None:
    time = Time()
    pace = Pace(10, clock=lambda: time.now, sleep=time.sleep)
    await pace.turn()
    time.now += 60
    begun = []
    for _ in range(3):
        await pace.turn()
        begun.append(time.now - 160)
    assert begun == [pytest.approx(value) for value in (0, 0.1, 0.2)]
