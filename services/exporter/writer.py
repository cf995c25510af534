"""Group commit: what arrives while one transaction is written goes into the next, together.

A transaction costs a flush to disk however many terms are in it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from services.exporter.store import Store
from services.kernel.contracts.card import CardsFinished
from services.kernel.errors import Outage, TransientError

GROUP_MAX = 200


class Writer:
    """Puts events into the store; `put` returns when its event is on disk.

    `note_trouble` hears why the store can't be written, and None when it can.
    """

    def __init__(self, store: Store, note_trouble: Callable[[str | None], None]) -> None:
        self._store = store
        self._note_trouble = note_trouble
        self._queue: asyncio.Queue[tuple[CardsFinished, asyncio.Future[None]]] = asyncio.Queue()

    async def put(self, event: CardsFinished) -> None:
        """Raises Outage while the store can't be written: nobody's cards are given up for that."""
        done = asyncio.get_running_loop().create_future()
        self._queue.put_nowait((event, done))
        await done

    async def run(self) -> None:
        """Writes groups, one after the other, for ever."""
        while True:
            group = [await self._queue.get()]
            while not self._queue.empty() and len(group) < GROUP_MAX:
                group.append(self._queue.get_nowait())
            await self._write(group)

    async def _write(self, group: list[tuple[CardsFinished, asyncio.Future[None]]]) -> None:
        waiting = [done for _, done in group if not done.done()]
        try:
            await self._store.put([event for event, _ in group])
        except TransientError as error:
            self._note_trouble(str(error))
            for done in waiting:
                done.set_exception(Outage(f"the store can't be written: {error}"))
        except Exception as error:
            for done in waiting:
                done.set_exception(error)
        else:
            self._note_trouble(None)
            for done in waiting:
                done.set_result(None)


@asynccontextmanager
async def running_writer(
    store: Store, note_trouble: Callable[[str | None], None]
) -> AsyncIterator[Writer]:
    writer = Writer(store, note_trouble)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(writer.run())
        yield writer
        task.cancel()
