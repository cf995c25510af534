"""The exporter's store: every finished card, in one SQLite file (tables: `schema`).

A transaction that returned is on the disk (`synchronous=FULL`), so its events can be
acknowledged. One process writes; any number read meanwhile (WAL). Deck files are not made here.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Final, Self

import aiosqlite

from services.exporter import database, schema, stored
from services.exporter.stored import StoredCard
from services.kernel.contracts.base import Batch
from services.kernel.contracts.card import CardsFinished
from services.kernel.errors import SettingsError

BUSY_TIMEOUT_S: Final = 5.0
"""How long to wait for another process's write lock; our own transactions take milliseconds."""


@dataclass(frozen=True, slots=True)
class BatchTotals:
    """Sums over the finished terms of a batch.

    `calls` reached a provider, `cached` completions came from our cache; up to two a term.
    """

    finished: int
    calls: int
    cached: int
    cost_usd: Decimal


class Store:
    """Finished cards by batch and by deck. Made by `open`; safe for concurrent tasks."""

    def __init__(self, path: Path, db: aiosqlite.Connection) -> None:
        self._path = path
        self._db = db
        # One transaction at a time, and no query that sees half of one.
        self._lock = asyncio.Lock()

    @classmethod
    @asynccontextmanager
    async def open(
        cls, path: Path, *, read_only: bool = False, busy_timeout_s: float = BUSY_TIMEOUT_S
    ) -> AsyncIterator[Self]:
        """The store at `path`; made, with its folder, when it is not there.

        `read_only` never makes or changes one. Raises SettingsError for a file that is missing
        then, or that is no store of this version; TransientError while it is locked.
        """
        if read_only and not await asyncio.to_thread(path.is_file):
            raise SettingsError(
                f"there is no store at {path}; expected the file that the exporter writes: "
                "run the exporter first, or name the path of its store"
            )
        async with database.connected(
            path, read_only=read_only, busy_timeout_s=busy_timeout_s
        ) as db:
            yield cls(path, db)

    async def put(self, events: Sequence[CardsFinished]) -> None:
        """Keep all events, or none, in one transaction.

        Idempotent, in any order: a term's cards are replaced whole, and only by newer ones.
        Raises TransientError while the file is locked, read-only or has no room to grow.
        """
        with database.translated(self._path):
            async with self._lock, database.transaction(self._db):
                for event in events:
                    await self._put_term(event)

    async def batch_totals(self, batch: str) -> BatchTotals:
        """What the batch came to so far; zeros for an unknown batch."""
        finished = calls = cached = 0
        cost_usd = Decimal(0)
        for cost, terms, calls_at_cost, cached_at_cost in await self._all(schema.TOTALS, batch):
            finished += terms
            calls += calls_at_cost
            cached += cached_at_cost
            cost_usd += Decimal(cost) * terms
        return BatchTotals(finished, calls, cached, cost_usd)

    async def batches(self) -> list[Batch]:
        """The batches that have cards, by name."""
        return [name for (name,) in await self._all(schema.BATCHES)]

    async def decks(self) -> list[str]:
        """The decks that have cards, by name."""
        return [name for (name,) in await self._all(schema.DECKS)]

    async def root_of(self, batch: str) -> Batch:
        """The batch that this one is a revision of; the batch itself when it is none."""
        for (revises,) in await self._all(schema.REVISED_BY, batch):
            return Batch(revises)
        return Batch(batch)

    async def cards_of_batch(self, batch: str) -> AsyncGenerator[StoredCard]:
        """All cards of a batch by the term's position, then its submission, then the card's.

        Each term as its newest revision has it; given the name of a revision, only that one's.

        Streams the state of one moment, whatever is put meanwhile. Close it
        (`contextlib.aclosing`) when leaving it before its end.
        """
        is_revision = await self.root_of(batch) != batch
        query = schema.CARDS_OF_REVISION if is_revision else schema.CARDS_OF_BATCH
        async with aclosing(self._cards(query, batch)) as cards:
            async for card in cards:
                yield card

    def cards_of_deck(self, deck: str) -> AsyncGenerator[StoredCard]:
        """The same for a deck, over all batches; a term comes once, as finished last."""
        return self._cards(schema.CARDS_OF_DECK, deck)

    async def _put_term(self, event: CardsFinished) -> None:
        cursor = await self._db.execute(schema.UPSERT_TERM, stored.term_row(event))
        if cursor.rowcount:
            await self._db.execute(schema.DELETE_CARDS, (event.batch, event.term_id))
            await self._db.executemany(schema.INSERT_CARD, stored.card_rows(event))

    async def _all(self, query: str, *values: str) -> list[sqlite3.Row]:
        with database.translated(self._path):
            async with self._lock:
                return list(await self._db.execute_fetchall(query, values))

    async def _cards(self, query: str, name: str) -> AsyncGenerator[StoredCard]:
        async with aclosing(database.stream(self._path, query, name)) as rows:
            async for row in rows:
                yield stored.stored_card(row)
