"""Plain lists: one term a line. Numbering and glosses are the normal form's to take off."""

from __future__ import annotations

from collections.abc import Iterator

from services.ingest.readers.columns import field_of
from services.ingest.readers.rows import BadRow, Line, Row
from services.kernel.korean.hangul import contains_hangul


def read_plain(lines: Iterator[Line]) -> Iterator[Row | BadRow]:
    """A row for every line but blank ones, comments behind `#`, and `term` or its like on top.

    단어 on top stays: it is a term, too.
    """
    for line in lines:
        term = line.text.strip(" \t\ufeff\u3000")
        if line.is_overlong:
            yield line.as_bad_row
        elif not term or term.startswith("#"):
            continue
        elif line.number > 1 or contains_hangul(term) or field_of(term) != "term":
            yield Row(line.number, {"term": term}, line.text)
