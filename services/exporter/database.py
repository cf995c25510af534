"""Opening the store's SQLite file, its transactions, and its errors in our words."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

import aiosqlite

from services.exporter import schema
from services.kernel.errors import SettingsError, TransientError

_ROWS_A_FETCH: Final = 500
"""Rows per trip to SQLite's thread, about 1 MB."""

_CAN_PASS: Final = {
    sqlite3.SQLITE_BUSY: "is locked by another process: end the process that holds the lock",
    sqlite3.SQLITE_LOCKED: "is locked: end the process that holds the lock",
    sqlite3.SQLITE_FULL: "can't grow, the disk is full: free some space",
    sqlite3.SQLITE_READONLY: "is read-only: make the file and its folder writable",
    sqlite3.SQLITE_IOERR: "can't be read or written: check the disk and its free space",
}
_CANNOT_PASS: Final = {
    sqlite3.SQLITE_CANTOPEN: "can't be opened: check that its folder exists and is writable",
    sqlite3.SQLITE_PERM: "can't be opened: give this user the right to read and write it",
    sqlite3.SQLITE_NOTADB: "is no SQLite file: name another path",
    sqlite3.SQLITE_CORRUPT: "is damaged: put a copy of it back, or move it away and replay CARDS",
}

_OUR_TABLES: Final = "SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name = 'terms'"
"""Programs that count their versions from 1 are many."""


@asynccontextmanager
async def connected(
    path: Path, *, read_only: bool, busy_timeout_s: float
) -> AsyncIterator[aiosqlite.Connection]:
    """A connection to the store at `path`; the file, its folder and its tables are made.

    A store of an earlier release is brought up to date in place, wholly or not at all.
    `read_only` makes and changes nothing. Raises SettingsError for what is no store of this
    version, TransientError for what a wait or some room on the disk can mend.
    """
    if not read_only:
        await _make_folder(path.parent)
    with translated(path):
        db = await aiosqlite.connect(
            _uri(path, "ro" if read_only else "rwc"),
            uri=True,
            timeout=busy_timeout_s,
            isolation_level=None,
        )
    try:
        with translated(path):
            await _prepare(db, path, read_only=read_only)
        yield db
    finally:
        await db.close()


@asynccontextmanager
async def transaction(db: aiosqlite.Connection) -> AsyncIterator[None]:
    """Commits at the end; undone on any error, and when the task is cancelled."""
    try:
        await db.execute("BEGIN IMMEDIATE")
        yield
        await db.commit()
    except BaseException:
        await db.rollback()
        raise


async def stream(path: Path, query: str, name: str) -> AsyncGenerator[tuple[Any, ...]]:
    """The rows of a query, as they were when it began.

    On a connection of its own: a long read keeps its snapshot and blocks nobody.
    """
    with translated(path):
        async with (
            aiosqlite.connect(_uri(path, "ro"), uri=True, iter_chunk_size=_ROWS_A_FETCH) as db,
            db.execute(query, (name,)) as cursor,
        ):
            async for row in cursor:
                yield tuple(row)


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """SQLite's errors in our words; those that show a fault of ours pass as they are."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if code in _CAN_PASS:
            raise TransientError(f"the store {path} {_CAN_PASS[code]} ({error})") from error
        if code in _CANNOT_PASS:
            raise SettingsError(f"the store {path} {_CANNOT_PASS[code]} ({error})") from error
        raise


async def _prepare(db: aiosqlite.Connection, path: Path, *, read_only: bool) -> None:
    if read_only or not await _is_empty(db):
        await _check_version(db, path, read_only=read_only)
    if not read_only:
        await db.execute("PRAGMA foreign_keys = ON")
        await db.execute("PRAGMA journal_mode = WAL")
        await db.execute("PRAGMA synchronous = FULL")
        await _make_tables(db)


async def _make_tables(db: aiosqlite.Connection) -> None:
    """In one transaction, which looks for itself: another opener may have been quicker."""
    async with transaction(db):
        if await _is_empty(db):
            for statement in schema.TABLES:
                await db.execute(statement)
        while (version := await _version(db)) != schema.VERSION:
            for statement in schema.MIGRATIONS[version]:
                await db.execute(statement)
        # A real write. Where the disk is read-only SQLite opens the file for reading, and begins
        # a transaction; such a connection could not write when the disk is writable again.
        await db.execute(f"PRAGMA user_version = {schema.VERSION}")


async def _check_version(db: aiosqlite.Connection, path: Path, *, read_only: bool) -> None:
    version = await _version(db)
    if version == schema.VERSION:
        return
    if version not in schema.MIGRATIONS or not await _number(db, _OUR_TABLES):
        raise SettingsError(
            f"{path} is no store of this release: its version is {version}, expected "
            f"{schema.VERSION}; name another path, or run the release that wrote it"
        )
    if read_only:
        raise SettingsError(
            f"{path} was written by an earlier release: its version is {version}, expected "
            f"{schema.VERSION}; start the exporter once (`cardflow up`), which brings it up to date"
        )


async def _version(db: aiosqlite.Connection) -> int:
    return await _number(db, "PRAGMA user_version")


async def _is_empty(db: aiosqlite.Connection) -> bool:
    return not await _number(db, "SELECT COUNT(*) FROM sqlite_master")


async def _number(db: aiosqlite.Connection, query: str) -> int:
    [(value,)] = await db.execute_fetchall(query)
    return int(value)


async def _make_folder(folder: Path) -> None:
    try:
        await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(
            f"the folder {folder} of the store can't be made ({error.strerror}): "
            "name a path that this user can write to"
        ) from error


def _uri(path: Path, mode: str) -> str:
    return f"{path.absolute().as_uri()}?mode={mode}"
