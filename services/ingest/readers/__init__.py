"""Reading the word lists that people have, as rows to submit. Bounds of fields are ingest's.

CSV, TSV, semicolon CSV, Anki's text exports, XLSX, JSONL and plain lists; in UTF-8, CP949, or
UTF-16 and UTF-32 with a byte order mark.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import BinaryIO

from services.ingest.readers.columns import Declared, read_table
from services.ingest.readers.delimited import commonest_separator, find_separator, read_records
from services.ingest.readers.encodings import TextFile, open_text
from services.ingest.readers.jsonl import read_jsonl
from services.ingest.readers.plain import read_plain
from services.ingest.readers.preamble import Preamble, bare_text, read_preamble
from services.ingest.readers.rows import SAMPLE_SIZE, BadRow, Line, Record, Row
from services.ingest.readers.sources import open_source
from services.ingest.readers.workbook import OLD_EXCEL_MAGIC, ZIP_MAGIC, read_workbook
from services.kernel.errors import SettingsError

__all__ = ["BadRow", "Row", "read_rows"]

_JSON_ENDINGS = (".jsonl", ".ndjson", ".json")
_TABLE_ENDINGS = (".csv", ".tsv", ".tab")


def read_rows(source: Path | BinaryIO, *, name: str = "-") -> Iterator[Row | BadRow]:
    """The rows of a word list in their order, in bounded memory; a bad row stops nothing.

    A stream is read from where it stands; `name` is its file's name, whose ending is a clue to the
    format, and what messages call it. Nothing is opened before the first row is asked for.
    Raises `SettingsError` for what can't be read as a whole: a path that can't be opened, an
    unknown encoding (both before the first row), a broken workbook.
    """
    shown = str(source) if isinstance(source, Path) else name
    ending = PurePath(shown).suffix.lower()
    with open_source(source) as stream:
        begin = stream.tell()
        magic = stream.read(len(ZIP_MAGIC))
        stream.seek(begin)
        if magic == OLD_EXCEL_MAGIC:
            raise SettingsError(f"{shown}: the old Excel format; save the workbook as .xlsx")
        if magic == ZIP_MAGIC or ending in (".xlsx", ".xlsm"):
            yield from read_table(read_workbook(stream, shown), Declared())
        else:
            yield from _read_text(open_text(stream, shown), ending, shown)


def _read_text(text: TextFile, ending: str, name: str) -> Iterator[Row | BadRow]:
    preamble = read_preamble(text.lines(), name)
    sample = _sample(text, preamble.length)
    begin = sample[0].lstrip()[:1] if sample else ""
    if begin == "[" and ending == ".json":
        raise SettingsError(f"{name}: a JSON array; write one object a line (jq -c '.[]' {name})")
    if ending in _JSON_ENDINGS or (begin == "{" and ending not in _TABLE_ENDINGS):
        yield from read_jsonl(text.lines())
    elif separator := preamble.separator or _separator(sample, ending):
        yield from read_table(_records(text, preamble, separator), preamble.declared)
    else:
        yield from read_plain(itertools.islice(text.lines(), preamble.length, None))


def _sample(text: TextFile, preamble_length: int) -> list[str]:
    lines = itertools.islice(text.lines(), preamble_length, None)
    readable = (line.text for line in lines if line.text.strip() and not line.is_overlong)
    return list(itertools.islice(readable, SAMPLE_SIZE))


def _separator(sample: list[str], ending: str) -> str | None:
    if ending in (".tsv", ".tab"):
        return "\t"
    return find_separator(sample) or (commonest_separator(sample) if ending == ".csv" else None)


def _records(text: TextFile, preamble: Preamble, separator: str) -> Iterator[Record | BadRow]:
    lines: Iterator[Line] = itertools.islice(text.lines(), preamble.length, None)
    for record in read_records(lines, separator):
        if preamble.is_html and isinstance(record, Record):
            cells = tuple(map(bare_text, record.cells))
            yield Record(record.line, cells, record.text)
        else:
            yield record
