"""The nine columns as plain TSV with a header row, for spreadsheets and programs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

from services.exporter.formats.text import tab_separated, write_lines
from services.exporter.stored import StoredCard
from services.kernel.contracts.card import COLUMNS

_FORMULA_STARTS = ("=", "+", "-", "@")


async def write(cards: AsyncIterator[StoredCard], target: Path) -> int:
    """Write the deck; its name is in no column."""
    header = "\t".join(COLUMNS) + "\n"
    return await write_lines(cards, target, _line, header=header)


def _line(stored: StoredCard, position: int) -> str:
    card = stored.card
    cells = (
        str(position),
        card.term,
        str(card.term_number),
        card.tab_name,
        card.primer,
        card.front,
        card.back,
        ",".join(tag.replace(",", "_") for tag in card.tags),
        card.honorific_level,
    )
    return tab_separated(_defused(cell) for cell in cells)


def _defused(cell: str) -> str:
    """A spreadsheet runs what begins like a formula; an apostrophe before it makes it text."""
    return f"'{cell}" if cell.lstrip().startswith(_FORMULA_STARTS) else cell
