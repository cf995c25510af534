"""What runs beside the work for as long as that lasts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import structlog


@asynccontextmanager
async def background(
    work: Coroutine[Any, Any, None], *, patience_s: float = 0.2
) -> AsyncIterator[None]:
    """Runs `work`, which has no end, beside the block, and ends it with the block.

    It is asked to end again after `patience_s`: longer than it may take to give things back.
    """
    task = asyncio.create_task(work)
    task.add_done_callback(_tell_of_failure)
    try:
        yield
    finally:
        # Once may not be enough: a request that is answered at that moment swallows it (bpo-37658).
        while not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=patience_s)


def _tell_of_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        structlog.get_logger().error("background.failed", error=repr(error))
