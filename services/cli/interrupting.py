"""Stopping in order at SIGINT and SIGTERM: a request that is not lost, and no cleanup cut short."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_CANCEL_AGAIN_S = 0.2


class Interrupted(Exception):
    """A signal came before the work was done."""


def stop_signal() -> asyncio.Event:
    """Set by the first SIGINT or SIGTERM; another one changes nothing."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


async def unless(stop: asyncio.Event, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`. Raises Interrupted, with the work cancelled, once `stop` is set."""
    task = asyncio.ensure_future(work)
    stopped = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait([task, stopped], return_when=asyncio.FIRST_COMPLETED)
        if stop.is_set():
            raise Interrupted
        return task.result()
    finally:
        await cancelled(stopped)
        await cancelled(task)


async def cancelled(task: asyncio.Future[Any]) -> None:
    """Asks until it is so: a wait that ends in the same moment swallows the first request."""
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=_CANCEL_AGAIN_S)
