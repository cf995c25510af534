"""What the line formats share: one line a card, cells that stay cells."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path

from services.exporter.formats.streaming import chunks, in_thread
from services.exporter.stored import StoredCard

Line = Callable[[StoredCard, int], str]
"""A card and its position in the file, from 1, to a line without its end."""

# Controls (tab, line breaks, and the 0x1F that parts Anki's fields) and Unicode's line ends.
_BREAKS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


def one_line(text: str) -> str:
    """The text with every run of control characters and line ends turned into one blank."""
    return _BREAKS.sub(" ", text)


def tab_separated(cells: Iterable[str]) -> str:
    """One line of TSV.

    A cell is quoted only if it begins with a quotation mark: there alone a CSV reader takes the
    mark for syntax, and everywhere else a reader that only splits at tabs gets the plain text.
    """
    return "\t".join(_quoted(one_line(cell)) for cell in cells)


async def write_lines(
    cards: AsyncIterator[StoredCard], target: Path, line: Line, *, header: str = ""
) -> int:
    """Write `header`, then a line a card, in UTF-8; gives the number of cards."""
    count = 0
    await in_thread(_append, target, header)
    async for chunk in chunks(cards):
        await in_thread(_append_cards, target, chunk, count, line)
        count += len(chunk)
    return count


def _append_cards(target: Path, chunk: list[StoredCard], before: int, line: Line) -> None:
    lines = (line(card, position) for position, card in enumerate(chunk, start=before + 1))
    _append(target, "".join(f"{each}\n" for each in lines))


def _append(target: Path, text: str) -> None:
    with target.open("a", encoding="utf-8", newline="\n") as file:
        file.write(text)


def _quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"' if cell.startswith('"') else cell
