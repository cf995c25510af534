"""Passing a deck of any length through blocking code, in bounded memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Final, ParamSpec, TypeVar

from services.exporter.stored import StoredCard

P = ParamSpec("P")
T = TypeVar("T")

CARDS_A_CHUNK: Final = 500
"""About 1 MB of text, some 30 ms of work: worth a trip to a thread, short enough to wait for."""


async def chunks(cards: AsyncIterator[StoredCard]) -> AsyncIterator[list[StoredCard]]:
    """The cards in lists of `CARDS_A_CHUNK`; the last may be shorter, none is empty."""
    chunk: list[StoredCard] = []
    async for card in cards:
        chunk.append(card)
        if len(chunk) == CARDS_A_CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


async def in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run blocking work in a thread; a cancelled caller still waits for its end.

    Nothing may clean up under a thread that is writing.
    """
    task = asyncio.ensure_future(asyncio.to_thread(work, *args, **kwargs))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
