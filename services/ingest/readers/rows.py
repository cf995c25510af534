"""What reading a word list gives: rows to submit, and rows that hold nothing to submit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

CHARACTERS_MAX: Final = 64 * 1024
"""Of one line, and of one row that quoted cells spread over several lines. A row needs under 4 KiB;
the bound is what keeps memory flat on a file without line breaks or with a quote never closed."""

SHOWN_CHARACTERS: Final = 200
"""How much of an overlong row is kept to show."""

SAMPLE_SIZE: Final = 100
"""Rows, or lines, looked at before the columns and the separator are settled."""


@dataclass(frozen=True)
class Row:
    """One submission. `line` counts from 1, in the file as people see it; `text` is the raw row.

    The keys of `fields` are those of `TermSubmitted`; the values are as written, their bounds
    unchecked. `term` is always there.
    """

    line: int
    fields: Mapping[str, str | int]
    text: str


@dataclass(frozen=True)
class BadRow:
    """A row without a submission in it, and why. Reading goes on behind it."""

    line: int
    text: str
    reason: str


@dataclass(frozen=True)
class Line:
    """A line of text without its end. One with `is_overlong` holds only its first characters."""

    number: int
    text: str
    is_overlong: bool = False

    @property
    def as_bad_row(self) -> BadRow:
        reason = f"the line has more than {CHARACTERS_MAX} characters; is it a list of terms?"
        return BadRow(self.number, self.text, reason)


@dataclass(frozen=True)
class Record:
    """A row cut into cells, before anybody knows what the columns mean."""

    line: int
    cells: tuple[str, ...]
    text: str
