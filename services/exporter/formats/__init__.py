"""Decks as files: one module a format, and the way by which each file comes to its place."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, Protocol

from services.exporter.formats import anki_tsv, apkg, jsonl, nine_columns
from services.exporter.formats.streaming import in_thread
from services.exporter.stored import StoredCard
from services.kernel.errors import SettingsError, TransientError


class Writer(Protocol):
    """Writes a deck to `target`, a new file in a folder of its own; gives the number of cards."""

    async def __call__(self, cards: AsyncIterator[StoredCard], target: Path) -> int: ...


FORMATS: Final[dict[str, Writer]] = {
    "apkg": apkg.write,
    "tsv": anki_tsv.write,
    "nine-tsv": nine_columns.write,
    "jsonl": jsonl.write,
}

_ENDINGS: Final = {
    ".apkg": "apkg",
    ".nine.tsv": "nine-tsv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
}
"""Endings of file names; the first that fits holds."""

_OPERATORS_TURN: Final = (PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError)


def format_of(path: Path) -> str:
    """The format that a file's name asks for; raises SettingsError for an ending of none."""
    name = path.name.lower()
    for ending, deck_format in _ENDINGS.items():
        if name.endswith(ending):
            return deck_format
    raise SettingsError(
        f"no format known for {path.name!r}: end the name in one of {', '.join(_ENDINGS)}, "
        f"or name the format ({', '.join(FORMATS)})"
    )


async def write_deck(format_name: str, cards: AsyncIterator[StoredCard], path: Path) -> int:
    """Write the cards to `path`, each for the deck that it was made for, and give their number.

    The file appears whole or not at all, and then is on the disk: it is drafted beside its place
    and moved there. A file that was there before stays until that moment. Missing folders are
    made. `cards` is read to its end or closed. Raises SettingsError for no cards, an unknown
    format, or a place that can't be written; TransientError when the disk fails.
    """
    try:
        return await _write(_writer(format_name), cards, path)
    finally:
        if isinstance(cards, AsyncGenerator):
            await cards.aclose()


async def _write(write: Writer, cards: AsyncIterator[StoredCard], path: Path) -> int:
    first = await anext(cards, None)
    if first is None:
        raise SettingsError(
            f"no cards yet for {path.name}: check the batch or deck, or wait for its first card"
        )
    with _translated(path):
        await in_thread(path.parent.mkdir, parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".cardflow-", dir=path.parent) as folder:
            draft = Path(folder) / f"draft{path.suffix}"
            count = await write(_joined(first, cards), draft)
            await in_thread(_put_in_place, draft, path)
    return count


async def _joined(
    first: StoredCard, others: AsyncIterator[StoredCard]
) -> AsyncIterator[StoredCard]:
    yield first
    async for card in others:
        yield card


def _writer(format_name: str) -> Writer:
    if format_name not in FORMATS:
        raise SettingsError(f"unknown format {format_name!r}: expected one of {', '.join(FORMATS)}")
    return FORMATS[format_name]


def _put_in_place(draft: Path, path: Path) -> None:
    """Rename, with the content on the disk before the name is, and the name before the return."""
    _sync(draft, os.O_RDWR)
    draft.replace(path)
    _sync(path.parent, os.O_RDONLY)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except _OPERATORS_TURN as error:
        raise SettingsError(
            f"{path} can't be written ({error}): name a file in a folder that this user can "
            "write to"
        ) from error
    except (OSError, sqlite3.OperationalError) as error:
        raise TransientError(
            f"{path} could not be written ({error}): check the disk and its free space"
        ) from error
