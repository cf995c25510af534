"""Anki packages, written by genanki; the same data gives the same bytes.

Anki updates a note only from a file with a newer time. So the time comes from the data, its
newest `finished_at`, and never from the clock. Notes go into genanki's tables chunk by chunk:
its own way holds a whole deck in memory. An update replaces all fields, the spares too.
"""

from __future__ import annotations

import itertools
import shutil
import sqlite3
import zipfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

import genanki

from services.exporter.formats.anki_look import ANSWER, QUESTION, STYLE
from services.exporter.formats.anki_note import (
    FIELDS,
    NOTE_TYPE,
    NOTE_TYPE_ID,
    SPARE_FIELDS,
    anki_tags,
    deck_id,
    guid,
    written_fields,
)
from services.exporter.formats.streaming import chunks, in_thread
from services.exporter.stored import StoredCard

_TERM_FIELD: Final = 1
"""What Anki's browser sorts and shows; the key in field 0 tells a reader nothing."""

_MIB: Final = 1024 * 1024
_ZIP64_FROM: Final = 1024 * _MIB
"""Half of zip's plain bound of 2 GiB, which what is packed must not pass either."""
_FAST: Final = 1
"""Deflate level: on text of this kind 6 takes four times as long for a tenth less."""


async def write(cards: AsyncIterator[StoredCard], target: Path) -> int:
    """Write the cards into their decks; needs a folder of its own for its working file."""
    package = await in_thread(_Package, target.with_name("collection.anki2"))
    try:
        async for chunk in chunks(cards):
            await in_thread(package.add, chunk)
        await in_thread(package.finish, target)
    finally:
        package.close()
    return package.count


class _Package:
    """The collection inside a package while it grows. Its methods block."""

    def __init__(self, path: Path) -> None:
        self.count = 0
        self._path = path
        self._decks: dict[str, genanki.Deck] = {}
        self._note_type = _note_type()
        self._ids: Iterator[int] = itertools.count(1)
        self._newest_s = 0
        # Chunks come from changing threads, one at a time.
        self._db = sqlite3.connect(path, check_same_thread=False)
        # A torn file is thrown away, so it needs neither a journal nor a sync.
        self._db.execute("PRAGMA journal_mode = OFF")
        self._db.execute("PRAGMA synchronous = OFF")
        genanki.Package([]).write_to_db(self._db.cursor(), 0, self._ids)

    def add(self, chunk: list[StoredCard]) -> None:
        if not self.count:
            # Anki's ids are milliseconds; in use already, they are moved up at the import.
            self._ids = itertools.count(int(chunk[0].finished_at.timestamp() * 1000))
        cursor = self._db.cursor()
        for stored in chunk:
            self.count += 1
            self._newest_s = max(self._newest_s, int(stored.finished_at.timestamp()))
            note = self._note(stored)
            note.write_to_db(cursor, 0, self._deck(stored.deck).deck_id, self._ids)

    def finish(self, target: Path) -> None:
        """Set the time of all notes, then pack the collection into `target`."""
        cursor = self._db.cursor()
        for deck in self._decks.values():
            deck.write_to_db(cursor, self._newest_s, self._ids)
        cursor.execute("UPDATE notes SET mod = ?", (self._newest_s,))
        cursor.execute("UPDATE cards SET mod = ?", (self._newest_s,))
        self._db.commit()
        self._db.close()
        _pack(self._path, target)

    def close(self) -> None:
        self._db.close()

    def _deck(self, name: str) -> genanki.Deck:
        if name not in self._decks:
            deck = self._decks[name] = genanki.Deck(deck_id(name), name)
            deck.add_model(self._note_type)
        return self._decks[name]

    def _note(self, stored: StoredCard) -> genanki.Note:
        fields = [*written_fields(stored, self.count), *("" for _ in SPARE_FIELDS)]
        return genanki.Note(
            model=self._note_type,
            fields=fields,
            tags=anki_tags(stored),
            guid=guid(stored),
            due=self.count,
        )


def _note_type() -> genanki.Model:
    return genanki.Model(
        NOTE_TYPE_ID,
        NOTE_TYPE,
        fields=[{"name": name} for name in FIELDS],
        templates=[{"name": "Card 1", "qfmt": QUESTION, "afmt": ANSWER}],
        css=STYLE,
        sort_field_index=_TERM_FIELD,
    )


def _pack(collection: Path, target: Path) -> None:
    """Members opened by name get zip's first day, not the clock's: equal data, equal bytes."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=_FAST) as package:
        huge = collection.stat().st_size > _ZIP64_FROM
        with (
            collection.open("rb") as source,
            package.open("collection.anki2", "w", force_zip64=huge) as member,
        ):
            shutil.copyfileobj(source, member, _MIB)
        with package.open("media", "w") as member:
            member.write(b"{}")
