"""A request to stop is not lost, and what stops in order is not cut short."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from services.cli.interrupting import Interrupted, stop_signal, unless


async def test_work_that_ends_by_itself_gives_its_result() -> None:
    async def work() -> str:
        return "done"

    assert await unless(asyncio.Event(), work()) == "done"


async def test_an_error_of_the_work_is_passed_on() -> None:
    async def work() -> None:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        await unless(asyncio.Event(), work())


async def test_work_that_swallows_a_cancellation_is_asked_again() -> None:
    stop, asked = asyncio.Event(), []

    async def stubborn() -> None:
        stop.set()
        for _ in range(2):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                asked.append("swallowed")
        await asyncio.Event().wait()

    with pytest.raises(Interrupted):
        await unless(stop, stubborn())
    assert asked == ["swallowed", "swallowed"]


async def test_a_stop_that_came_before_the_work_stops_it_at_once() -> None:
    stop = asyncio.Event()
    stop.set()
    with pytest.raises(Interrupted):
        await unless(stop, asyncio.Event().wait())


async def test_signals_set_the_stop_and_raise_nothing() -> None:
    stop = stop_signal()
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGINT)
    await asyncio.wait_for(stop.wait(), 5)
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().remove_signal_handler(number)
