"""JSONL: one JSON object, or one JSON string, a line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from services.ingest.readers.columns import field_of, position_field
from services.ingest.readers.rows import BadRow, Line, Row

_HALF_PAIR = re.compile("[\ud800-\udfff]")


def read_jsonl(lines: Iterator[Line]) -> Iterator[Row | BadRow]:
    """Keys are known by the names that a header may use; unknown ones are left out."""
    for line in lines:
        text = line.text.strip(" \t\ufeff")
        if line.is_overlong:
            yield line.as_bad_row
        elif text:
            try:
                yield Row(line.number, _fields(_value(text)), line.text)
            except ValueError as error:
                yield BadRow(line.number, line.text, str(error))


def _value(text: str) -> Any:
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise ValueError("the JSON is nested too deeply; send a flat object") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"the line is no JSON: {error}") from error
    if "\\u" in text and _HALF_PAIR.search(json.dumps(value, ensure_ascii=False)):
        raise ValueError("the JSON holds half of a surrogate pair, which is no text")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r} stands twice; which one counts?")
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _fields(value: Any) -> dict[str, str | int]:
    if isinstance(value, str):
        value = {"term": value}
    if not isinstance(value, dict):
        raise ValueError(f"expected a JSON object, not {type(value).__name__}")
    fields: dict[str, str | int] = {}
    for key, held in value.items():
        name = field_of(key)
        if name and name not in fields and held not in (None, ""):
            fields |= position_field(str(held)) if name == "position" else {name: _text(key, held)}
    if not str(fields.get("term", "")).strip():
        raise ValueError('no term: expected a key "term" that holds text')
    return fields


def _text(key: str, held: Any) -> str:
    if not isinstance(held, str):
        raise ValueError(f"{key!r} holds {type(held).__name__}, expected text")
    return held
