"""How late the event loop is: what blocks it holds up every message, heartbeat and probe."""

from __future__ import annotations

import asyncio
from typing import Final

from services.kernel.metrics import Metrics

_INTERVAL_S: Final = 0.25


async def watch_loop(metrics: Metrics) -> None:
    """Measures how much later than asked it is woken, four times a second. Runs for ever."""
    clock = asyncio.get_running_loop().time
    while True:
        asked_at = clock()
        await asyncio.sleep(_INTERVAL_S)
        metrics.loop_lag.observe(max(0.0, clock() - asked_at - _INTERVAL_S))
