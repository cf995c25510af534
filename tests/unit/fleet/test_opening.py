"""What runs in the background ends with its block, whatever it missed."""

from __future__ import annotations

import asyncio

from services.kernel.fleet.opening import background


async def test_work_that_missed_its_cancelling_is_cancelled_again() -> None:
    missed = 0

    async def work() -> None:
        nonlocal missed
        while True:
            try:
                await asyncio.sleep(3_600)
            except asyncio.CancelledError:
                if missed == 2:
                    raise
                missed += 1

    async with background(work()):
        await asyncio.sleep(0)
    assert missed == 2
