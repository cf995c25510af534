"""The clock of the model: what waits takes no time, and every run is the same."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest
from model.virtual_time import Stalled, VirtualLoop

_DAY_S = 86_400.0


@pytest.fixture
def loop() -> Iterator[VirtualLoop]:
    virtual = VirtualLoop()
    yield virtual
    virtual.shut()


def test_a_day_of_sleep_takes_no_time(loop: VirtualLoop) -> None:
    began_at = time.monotonic()
    loop.run_for(_DAY_S)
    assert loop.time() == _DAY_S
    assert time.monotonic() - began_at < 1


def test_what_sleeps_wakes_up_in_the_order_of_the_clock(loop: VirtualLoop) -> None:
    woken: list[tuple[float, str]] = []

    async def sleeper(name: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        woken.append((loop.time(), name))

    async def all_sleep() -> None:
        await asyncio.gather(sleeper("late", 30), sleeper("early", 0.5), sleeper("then", 0.75))

    loop.finish(all_sleep())
    assert woken == [(0.5, "early"), (0.75, "then"), (30.0, "late")]


def test_a_timeout_follows_the_virtual_clock(loop: VirtualLoop) -> None:
    async def too_slow() -> None:
        async with asyncio.timeout(10):
            await asyncio.sleep(3_600)

    with pytest.raises(TimeoutError):
        loop.finish(too_slow())
    assert loop.time() == 10


def test_waiting_for_what_nobody_does_is_an_error_instead_of_a_standstill() -> None:
    loop = VirtualLoop()

    async def waiting_for_ever() -> None:
        await loop.create_future()

    with pytest.raises(Stalled):
        loop.finish(waiting_for_ever())
    loop.shut()
