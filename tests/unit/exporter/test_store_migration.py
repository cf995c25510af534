"""A store of version 1 becomes one of this version: in place, whole, with all that it holds."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import pytest
from card_samples import after, card, finished, stage

from services.exporter import schema, stored
from services.exporter.store import Store
from services.kernel.contracts.card import CardsFinished
from services.kernel.errors import SettingsError

# The statements of version 1, as its release had them. They never change.
TABLES = (
    """
    CREATE TABLE terms (
        batch TEXT NOT NULL,
        term_id TEXT NOT NULL,
        deck TEXT NOT NULL,
        term TEXT NOT NULL,
        homonym INTEGER,
        position INTEGER NOT NULL,
        pos TEXT NOT NULL,
        stage1_model TEXT NOT NULL,
        stage2_model TEXT NOT NULL,
        cost_usd TEXT NOT NULL,
        calls INTEGER NOT NULL,
        cached INTEGER NOT NULL,
        submitted_at TEXT NOT NULL,
        finished_at TEXT NOT NULL,
        event TEXT NOT NULL,
        PRIMARY KEY (batch, term_id)
    ) STRICT
    """,
    """
    CREATE TABLE cards (
        batch TEXT NOT NULL,
        term_id TEXT NOT NULL,
        card_type TEXT NOT NULL,
        card_position INTEGER NOT NULL,
        ordinal INTEGER NOT NULL,
        term TEXT NOT NULL,
        term_number INTEGER NOT NULL,
        primer TEXT NOT NULL,
        front TEXT NOT NULL,
        back TEXT NOT NULL,
        tags TEXT NOT NULL,
        honorific_level TEXT NOT NULL,
        PRIMARY KEY (batch, term_id, card_type, card_position),
        FOREIGN KEY (batch, term_id) REFERENCES terms (batch, term_id) ON DELETE CASCADE
    ) STRICT
    """,
    "CREATE INDEX terms_by_batch ON terms (batch, position, submitted_at, term_id)",
    "CREATE INDEX terms_by_deck ON terms (deck, position, submitted_at, term_id)",
    "CREATE INDEX newest_terms ON terms (deck, term_id, finished_at, batch)",
    "CREATE INDEX totals ON terms (batch, cost_usd, calls, cached)",
    "PRAGMA user_version = 1",
)

INSERT_TERM = """
    INSERT INTO terms VALUES (
        :batch, :term_id, :deck, :term, :homonym, :position, :pos, :stage1_model, :stage2_model,
        :cost_usd, :calls, :cached, :submitted_at, :finished_at, :event
    )
"""

EVENTS = [
    finished("책", cards=[card(1), card(2, "Hanja")], stage1=stage(cost_usd="0.1")),
    finished("물", position=2, finished_at=after(3)),
    finished("책", batch="b2", deck="Other", position=7),
]


def make_version_1(path: Path, events: Iterable[CardsFinished] = EVENTS) -> Path:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("PRAGMA journal_mode = WAL")
        for statement in TABLES:
            db.execute(statement)
        for event in events:
            row = stored.term_row(event)
            db.execute(INSERT_TERM, {k: row[k] for k in row if k not in ("revises", "revision")})
            db.executemany(schema.INSERT_CARD, stored.card_rows(event))
    return path


def content(path: Path) -> list[str]:
    """All that is in the file, as statements that would make it."""
    with closing(sqlite3.connect(path)) as db:
        return list(db.iterdump())


def terms(path: Path) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute("SELECT * FROM terms ORDER BY batch, term_id").fetchall()


def columns(path: Path) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute("PRAGMA table_info(terms)").fetchall()


def indexes(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as db:
        return {sql for (sql,) in db.execute("SELECT sql FROM sqlite_master WHERE type = 'index'")}


async def test_what_a_store_of_version_1_holds_is_kept(tmp_path: Path) -> None:
    path = make_version_1(tmp_path / "old.sqlite")
    async with Store.open(tmp_path / "new.sqlite") as new, Store.open(path) as migrated:
        await new.put(EVENTS)
        for batch in ("b1", "b2"):
            assert await migrated.batch_totals(batch) == await new.batch_totals(batch)
            assert [c async for c in migrated.cards_of_batch(batch)] == [
                c async for c in new.cards_of_batch(batch)
            ]
        assert [c async for c in migrated.cards_of_deck("Korean")] == [
            c async for c in new.cards_of_deck("Korean")
        ]
    assert terms(path) == terms(tmp_path / "new.sqlite")


async def test_a_migrated_store_is_made_like_a_new_one(tmp_path: Path) -> None:
    old, new = make_version_1(tmp_path / "old.sqlite"), tmp_path / "new.sqlite"
    async with Store.open(old), Store.open(new):
        pass
    assert columns(old) == columns(new)
    assert indexes(old) == indexes(new)
    for path in (old, new):
        with closing(sqlite3.connect(path)) as db:
            assert db.execute("PRAGMA user_version").fetchone() == (schema.VERSION,)


async def test_a_migrated_store_takes_revisions(tmp_path: Path) -> None:
    async with Store.open(make_version_1(tmp_path / "old.sqlite")) as store:
        made = [card(front="anew?")]
        await store.put([finished("책", batch="b1-r2", revises="b1", revision=2, cards=made)])
        fronts = [c.card.front async for c in store.cards_of_batch("b1")]
    assert fronts[0] == "anew?"
    assert len(fronts) == 2


async def test_two_openers_at_once_migrate_once(tmp_path: Path) -> None:
    path = make_version_1(tmp_path / "old.sqlite")

    async def totals() -> int:
        async with Store.open(path) as store:
            return (await store.batch_totals("b1")).finished

    assert await asyncio.gather(*(totals() for _ in range(4))) == [2] * 4


async def test_a_migration_that_fails_leaves_version_1_as_it_was(tmp_path: Path) -> None:
    path = make_version_1(tmp_path / "old.sqlite")
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE newest_revisions (name TEXT)")  # The name of the last index.
    before = content(path)
    with pytest.raises(sqlite3.OperationalError, match="already a table named newest_revisions"):
        async with Store.open(path):
            pass
    assert content(path) == before
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (1,)


async def test_a_reader_changes_no_store_of_version_1_and_says_who_does(tmp_path: Path) -> None:
    path = make_version_1(tmp_path / "old.sqlite")
    before = content(path)
    with pytest.raises(SettingsError, match="start the exporter once"):
        async with Store.open(path, read_only=True):
            pass
    assert content(path) == before
