"""CSV and its relatives: finding the separator, and cutting lines into records."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator, Sequence

from services.ingest.readers.columns import is_header
from services.ingest.readers.rows import CHARACTERS_MAX, SHOWN_CHARACTERS, BadRow, Line, Record

_CANDIDATES = ("\t", ",", ";")

_RECORD_LINES_MAX = 200
"""A cell of more lines is taken for a quote never closed. Also bounds how often a line is read
again, in a file where every line has such a quote."""


def find_separator(lines: Sequence[str]) -> str | None:
    """The separator of a table of which these are the first lines; None if they are no table.

    A header settles it, then tabs in most lines, then commas or semicolons that cut every line
    into equally many cells: a comma in an expression to learn makes no table.
    """
    for separator in _CANDIDATES:
        if lines and len(header := _cells(lines[0], separator)) > 1 and is_header(header):
            return separator
    if lines and 2 * sum("\t" in line for line in lines) >= len(lines):
        return "\t"
    for separator in _CANDIDATES[1:]:
        widths = {len(_cells(line, separator)) for line in lines}
        if len(lines) > 1 and len(widths) == 1 and widths != {1}:
            return separator
    return None


def commonest_separator(lines: Sequence[str]) -> str:
    """The separator in most of the lines of a file that is a table by its name."""
    return max((",", ";", "\t"), key=lambda separator: sum(separator in line for line in lines))


def read_records(lines: Iterator[Line], separator: str) -> Iterator[Record | BadRow]:
    """The records, blank ones left out. Quoted cells may hold separators and line breaks.

    A quote that is never closed costs its own line, not the rest of the file: reading begins
    again on the line after it.
    """
    feed = _Feed(lines)
    reader = csv.reader(feed, delimiter=separator, skipinitialspace=True)
    while True:
        feed.begin_record()
        try:
            cells = next(reader, None)
        except (_RecordTooLong, csv.Error):
            yield feed.give_up_first_line()
            continue
        if cells is None:
            return
        if feed.has_ended:
            yield feed.give_up_first_line()
        elif any(cell.strip() for cell in cells):
            yield Record(feed.taken[0].number, tuple(cells), feed.text)


def _cells(line: str, separator: str) -> list[str]:
    return next(csv.reader([line], delimiter=separator), [])


class _RecordTooLong(Exception):
    """Breaks off a record, from inside of the csv module, that outgrew its bound."""


class _Feed:
    """Lines for the csv module, which remembers those of the record being read.

    `has_ended`: the module asked for a line behind the last, so it sits in an open quote.
    """

    def __init__(self, lines: Iterator[Line]) -> None:
        self._lines = lines
        self._again: deque[Line] = deque()
        self.begin_record()

    def begin_record(self) -> None:
        self.taken: list[Line] = []
        self._characters = 0
        self.has_ended = False

    def __iter__(self) -> _Feed:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._lines, None)
        if line is None:
            self.has_ended = True
            raise StopIteration
        self.taken.append(line)
        self._characters += len(line.text) + 1
        too_many = len(self.taken) > _RECORD_LINES_MAX or self._characters > CHARACTERS_MAX + 1
        if line.is_overlong or too_many:
            raise _RecordTooLong
        return line.text + "\n"

    @property
    def text(self) -> str:
        return "\n".join(line.text for line in self.taken)

    def give_up_first_line(self) -> BadRow:
        first, *rest = self.taken
        self._again.extendleft(reversed(rest))
        if first.is_overlong:
            return first.as_bad_row
        reason = "a quote is opened and not closed; close it, or double it if it is meant"
        return BadRow(first.number, first.text[:SHOWN_CHARACTERS], reason)
