"""One JSON object a card and line, for programs: the nine columns and where the card is from."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from services.exporter.formats.text import write_lines
from services.exporter.stored import StoredCard

# JSON lets these stand in a string, but many readers of lines end a line there.
_LINE_ENDS: Final = str.maketrans({"\x85": "\\u0085", "\u2028": "\\u2028", "\u2029": "\\u2029"})


async def write(cards: AsyncIterator[StoredCard], target: Path) -> int:
    """Write the deck; each card names the deck that it was made for."""
    return await write_lines(cards, target, _line)


def _line(stored: StoredCard, position: int) -> str:
    card = stored.card
    values = {
        "position": position,
        "term": card.term,
        "term_number": card.term_number,
        "tab_name": card.tab_name,
        "primer": card.primer,
        "front": card.front,
        "back": card.back,
        "tags": list(card.tags),
        "honorific_level": card.honorific_level,
        "batch": stored.batch,
        "deck": stored.deck,
        "term_id": stored.term_id,
        "card_type": card.tab_name,
        "model": stored.model,
        "finished_at": stored.finished_at.isoformat(),
    }
    return json.dumps(values, ensure_ascii=False).translate(_LINE_ENDS)
