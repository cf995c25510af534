"""The store's file: durable, whole after every failure, and refused when it is another's."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from card_samples import finished

from services.exporter import schema
from services.exporter.store import Store
from services.exporter.stored import StoredCard
from services.kernel.errors import SettingsError, TransientError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "store 100%?.sqlite"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[Store]:
    async with Store.open(path) as opened:
        yield opened


async def batch(store: Store, name: str = "b1") -> list[StoredCard]:
    return [card async for card in store.cards_of_batch(name)]


async def test_a_full_disk_undoes_the_put_and_passes(store: Store) -> None:
    await store.put([finished("물")])
    [(pages,)] = await store._all("PRAGMA page_count")
    await store._all(f"PRAGMA max_page_count = {pages + 5}")
    events = [finished(str(n), position=n + 1) for n in range(50)]
    with pytest.raises(TransientError, match=r"disk is full: free some space"):
        await store.put(events)
    assert [kept.term for kept in await batch(store)] == ["물"]
    await store._all(f"PRAGMA max_page_count = {pages + 5000}")
    await store.put(events)
    assert (await store.batch_totals("b1")).finished == 51


async def test_a_locked_file_is_a_transient_error_and_can_still_be_read(path: Path) -> None:
    async with Store.open(path, busy_timeout_s=0.01) as store:
        await store.put([finished("물")])
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(TransientError, match="locked by another process"):
            await store.put([finished("책")])
        assert len(await batch(store)) == 1
        other.close()
        await store.put([finished("책")])
        assert len(await batch(store)) == 2


async def test_a_store_that_turned_read_only_passes(store: Store) -> None:
    await store._all("PRAGMA query_only = ON")
    with pytest.raises(TransientError, match="read-only: make the file and its folder writable"):
        await store.put([finished("물")])
    await store._all("PRAGMA query_only = OFF")
    await store.put([finished("물")])
    assert len(await batch(store)) == 1


async def test_what_was_put_is_there_after_opening_again(path: Path) -> None:
    async with Store.open(path) as store:
        await store.put([finished()])
    async with Store.open(path) as store:
        assert len(await batch(store)) == 1


async def test_a_commit_is_synced_to_a_write_ahead_log(store: Store) -> None:
    values = {
        name: (await store._all(f"PRAGMA {name}"))[0][0]
        for name in ("journal_mode", "synchronous", "busy_timeout", "foreign_keys", "user_version")
    }
    assert values == {
        "journal_mode": "wal",
        "synchronous": 2,  # FULL
        "busy_timeout": 5000,
        "foreign_keys": 1,
        "user_version": schema.VERSION,
    }


async def test_a_reader_follows_the_writer_and_cannot_write(store: Store, path: Path) -> None:
    async with Store.open(path, read_only=True) as reader:
        assert await reader.decks() == []
        await store.put([finished()])
        assert await reader.decks() == ["Korean"]
        assert await batch(reader) == await batch(store)
        with pytest.raises(TransientError, match="read-only: make the file"):
            await reader.put([finished("물")])


async def test_reading_a_store_that_is_not_there_says_what_to_do(path: Path) -> None:
    with pytest.raises(SettingsError, match="run the exporter first"):
        async with Store.open(path, read_only=True):
            pass
    assert not path.parent.exists()


def no_database(path: Path) -> None:
    path.write_text("no database at all" * 100)


def foreign(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE birds (name TEXT)")
    db.close()


def foreign_of_version_1(path: Path) -> None:
    foreign(path)
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 1")
    db.close()


def newer(path: Path) -> None:
    foreign(path)
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    db.close()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (no_database, "is no SQLite file"),
        (foreign, f"its version is 0, expected {schema.VERSION}"),
        (foreign_of_version_1, f"its version is 1, expected {schema.VERSION}"),
        (newer, f"its version is {schema.VERSION + 1}, expected {schema.VERSION}"),
        (Path.mkdir, "can't be opened"),
    ],
)
async def test_a_file_that_is_no_store_is_refused_and_left_alone(
    tmp_path: Path, make: Callable[[Path], None], message: str
) -> None:
    path = tmp_path / "other"
    make(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(SettingsError, match=message):
        async with Store.open(path):
            pass
    assert before is None or path.read_bytes() == before


async def test_a_folder_that_cannot_be_made_is_a_settings_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="name a path that this user can write to"):
        async with Store.open(tmp_path / "file" / "store.sqlite"):
            pass


async def test_a_fault_of_ours_passes_as_it_is(store: Store) -> None:
    with pytest.raises(sqlite3.OperationalError, match="no such column"):
        await store._all("SELECT nonsense FROM terms")


async def test_two_openers_at_once_make_one_store(path: Path) -> None:
    async with Store.open(path) as first, Store.open(path) as second:
        await asyncio.gather(first.put([finished("책")]), second.put([finished("물")]))
        assert await batch(first) == await batch(second)
        assert len(await batch(first)) == 2
