"""What the columns of a table mean: by a header in English or Korean, else by looking at rows."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from services.ingest.readers.rows import SAMPLE_SIZE, BadRow, Record, Row
from services.kernel.korean.hangul import contains_hangul

_NAMES = {
    "term": "term terms hangul hangeul korean word words vocabulary vocab expression headword lemma"
    " 단어 어휘 한글 한국어 낱말 표제어 용어 표현",
    "position": "position no nr number num # index order rank 번호 순번 순서 순위 연번 일련번호",
    "type": "type pos part_of_speech word_class 품사",
    "hint": "hint meaning meanings gloss definition translation english hanja"
    " 뜻 의미 뜻풀이 풀이 해석 번역 영어 한자 힌트 길잡이말",
    "deck": "deck 덱",
    "priority": "priority 우선순위",
}
_FIELD_BY_NAME = {name: field for field, names in _NAMES.items() for name in names.split()}
_SEPARATORS_IN_NAMES = re.compile(r"[\s_-]+")
_BRACKETED = re.compile(r"[(\[].*?[)\]]")
_POSITION = re.compile(r"[0-9]{1,18}")
_WHOLE_FLOAT = re.compile(r"\.0+$")


@dataclass(frozen=True)
class Columns:
    """Indexes from 0. All `hints` go into the hint; `deck` is for rows that name none."""

    term: int
    hints: tuple[int, ...]
    others: Mapping[str, int]
    deck: str | None


@dataclass(frozen=True)
class Declared:
    """What a file says of its columns outside of the table itself, as Anki's exports do.

    `names` stand for a header row; `never_term` are columns that hold no field of ours.
    """

    names: tuple[str, ...] | None = None
    deck: str | None = None
    deck_column: int | None = None
    never_term: frozenset[int] = frozenset()


@functools.lru_cache(maxsize=1_000)
def field_of(name: str) -> str | None:
    """The field that a column of this name holds: `단어 (Korean)` → term."""
    bare = _BRACKETED.sub("", name).strip(" \t\n.:*\ufeff\u200b").casefold()
    return _FIELD_BY_NAME.get(_SEPARATORS_IN_NAMES.sub("_", bare))


def is_header(cells: Sequence[str]) -> bool:
    """True if the cells name columns: the term's, or two others. A number is never a name."""
    known = {name for cell in cells if (name := field_of(cell))}
    return ("term" in known or len(known) > 1) and not any(map(_is_number, cells))


def read_table(records: Iterable[Record | BadRow], declared: Declared) -> Iterator[Row | BadRow]:
    """The rows of a table; its columns are settled on the first `SAMPLE_SIZE` records."""
    remaining = iter(records)
    sample = list(itertools.islice(remaining, SAMPLE_SIZE))
    table = [record for record in sample if isinstance(record, Record)]
    header = _header_row(table) if declared.names is None else None
    names = header.cells if header else declared.names or ()
    columns = _settle(names, [r.cells for r in table if r is not header], declared)
    for record in itertools.chain(sample, remaining):
        if isinstance(record, BadRow):
            yield record
        elif record is not header:
            yield _row(record, columns)


def _header_row(table: Sequence[Record]) -> Record | None:
    """The first record, if it names columns, or alone has several cells without any Korean."""
    if not table:
        return None
    first = [cell for cell in table[0].cells if cell.strip()]
    is_foreign = not any(contains_hangul(cell) or _is_number(cell) for cell in first)
    korean_below = any(contains_hangul(cell) for record in table[1:] for cell in record.cells)
    if is_header(first) or (is_foreign and korean_below and len(first) > 1):
        return table[0]
    return None


def _settle(names: Sequence[str], rows: Sequence[tuple[str, ...]], declared: Declared) -> Columns:
    fields = {index: name for index, cell in enumerate(names) if (name := field_of(cell))}
    if declared.deck_column is not None:
        fields[declared.deck_column] = "deck"
    free = [
        index
        for index in range(max(map(len, rows), default=0))
        if index not in declared.never_term and fields.get(index) != "deck"
    ]
    term = _term_column(fields, rows, free)
    named = {index: name for index, name in fields.items() if index != term}
    hints = [index for index, name in named.items() if name in ("hint", "term")]
    if "term" not in fields.values() and not hints:
        hints = _only_gloss([index for index in free if index != term and index not in named], rows)
    others: dict[str, int] = {}
    for index, name in named.items():
        if name not in ("hint", "term"):
            others.setdefault(name, index)
    return Columns(term, tuple(hints), others, declared.deck)


def _only_gloss(unnamed: Sequence[int], rows: Sequence[tuple[str, ...]]) -> list[int]:
    """Beside the terms of a list without names, the one column of text is their gloss."""
    texts = [
        index
        for index in unnamed
        if any(cell and not _is_number(cell) for cell in (_cell(row, index) for row in rows))
    ]
    return texts if len(texts) == 1 else []


def _term_column(
    fields: Mapping[int, str], rows: Sequence[tuple[str, ...]], free: Sequence[int]
) -> int:
    """The column with the most Korean cells, of those named so if there are any; the first wins."""

    def hangul_cells(index: int) -> int:
        return sum(contains_hangul(_cell(row, index)) for row in rows)

    named = [index for index, name in fields.items() if name == "term"]
    return max(named or free, key=hangul_cells, default=0)


def _row(record: Record, columns: Columns) -> Row | BadRow:
    term = _cell(record.cells, columns.term)
    if not term:
        reason = f"no term: column {columns.term + 1} of {len(record.cells)} is empty or missing"
        return BadRow(record.line, record.text, reason)
    fields: dict[str, str | int] = {"term": term}
    if columns.deck:
        fields["deck"] = columns.deck
    for name, index in columns.others.items():
        value = _cell(record.cells, index)
        if name == "position":
            fields |= position_field(value)
        elif value:
            fields[name] = value
    if hint := "; ".join(filter(None, (_cell(record.cells, i) for i in columns.hints))):
        fields["hint"] = hint
    return Row(record.line, fields, record.text)


def position_field(value: str) -> dict[str, str | int]:
    """`{"position": n}` for an integer from 1 on; nothing otherwise: then arrival counts."""
    digits = _WHOLE_FLOAT.sub("", value)
    if _POSITION.fullmatch(digits) and int(digits) >= 1:
        return {"position": int(digits)}
    return {}


def _cell(cells: Sequence[str], index: int) -> str:
    return cells[index].strip() if index < len(cells) else ""


def _is_number(cell: str) -> bool:
    return _POSITION.fullmatch(cell.strip().rstrip(".)")) is not None
