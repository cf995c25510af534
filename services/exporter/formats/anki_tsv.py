"""Anki's text import: the note type, fields, tags and GUIDs of the .apkg, as lines of text.

Importing it again updates notes in place. Anki finds the note type by its name, so the
collection must have it: by one import of an .apkg. The spare fields are left out, so that
what a learner put there stays. Headers: https://docs.ankiweb.net/importing/text-files.html
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from services.exporter.formats.anki_note import (
    NOTE_TYPE,
    WRITTEN_FIELDS,
    anki_tags,
    guid,
    written_fields,
)
from services.exporter.formats.text import tab_separated, write_lines
from services.exporter.stored import StoredCard

COLUMNS: Final = ("GUID", "Deck", *WRITTEN_FIELDS, "Tags")
HEADER: Final = "".join(
    f"#{line}\n"
    for line in (
        "separator:tab",
        "html:true",
        f"notetype:{NOTE_TYPE}",
        "columns:" + "\t".join(COLUMNS),
        "guid column:1",
        "deck column:2",
        f"tags column:{len(COLUMNS)}",
    )
)


async def write(cards: AsyncIterator[StoredCard], target: Path) -> int:
    """Write the cards with their decks, in whose names `::` makes sub-decks."""

    def line(stored: StoredCard, position: int) -> str:
        fields = written_fields(stored, position)
        return tab_separated((guid(stored), stored.deck, *fields, " ".join(anki_tags(stored))))

    return await write_lines(cards, target, line, header=HEADER)
