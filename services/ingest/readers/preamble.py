"""The lines above a table that say how to read it: Anki's `#key:value` and Excel's `sep=;`.

Source: the Anki manual, "Importing text files", file headers.
"""

from __future__ import annotations

import csv
import html
import re
from collections.abc import Iterable
from dataclasses import dataclass

from services.ingest.readers.columns import Declared
from services.ingest.readers.rows import Line
from services.kernel.errors import SettingsError

_ANKI_KEY = re.compile(
    r"#(separator|html|columns|deck|notetype|tags|if matches"
    r"|(?:deck|notetype|tags|guid) column):(.*)",
    re.IGNORECASE,
)
_EXCEL_SEPARATOR = re.compile(r"sep=(.)", re.IGNORECASE)
_SEPARATORS = {
    "tab": "\t",
    "comma": ",",
    "semicolon": ";",
    "space": " ",
    "pipe": "|",
    "colon": ":",
}

_BREAKING_TAG = re.compile(r"</?(?:br|div|p|li|tr|td)\b[^<>]*>", re.IGNORECASE)
_TAG = re.compile(r"<[^<>]*>|\[sound:[^\[\]]*\]")


@dataclass(frozen=True)
class Preamble:
    """`length` in lines. `separator` is None where the file names none."""

    length: int
    separator: str | None
    is_html: bool
    declared: Declared


def read_preamble(lines: Iterable[Line], name: str) -> Preamble:
    """What the first lines declare. Raises `SettingsError` for a separator we can't read."""
    length = 0
    said: dict[str, str] = {}
    for line in lines:
        if found := _ANKI_KEY.fullmatch(line.text):
            said[found[1].lower()] = found[2]
        elif line.number == 1 and (excel := _EXCEL_SEPARATOR.fullmatch(line.text)):
            said["separator"] = excel[1]
        else:
            break
        length = line.number
    separator = _separator(said["separator"], name) if "separator" in said else None
    is_html = said.get("html", "").strip().lower() == "true"
    return Preamble(length, separator, is_html, _declared(said, separator or "\t"))


def bare_text(cell: str) -> str:
    """A cell of HTML as it reads: no tags, no sounds, entities resolved."""
    return html.unescape(_TAG.sub("", _BREAKING_TAG.sub(" ", cell)))


def _separator(said: str, name: str) -> str:
    separator = _SEPARATORS.get(said.strip().lower(), said.strip() or said[:1])
    if len(separator) != 1 or separator == '"':
        raise SettingsError(
            f"{name}: the separator {said!r} is not known; "
            f"write one character or one of {', '.join(_SEPARATORS)} behind #separator:"
        )
    return separator


def _declared(said: dict[str, str], separator: str) -> Declared:
    names = None
    if "columns" in said:
        names = tuple(next(csv.reader([said["columns"]], delimiter=separator), []))
    columns = {
        key: int(value) - 1
        for key, value in said.items()
        if key.endswith(" column") and re.fullmatch("[1-9][0-9]{0,3}", value.strip())
    }
    return Declared(
        names=names,
        deck=said.get("deck", "").strip() or None,
        deck_column=columns.pop("deck column", None),
        never_term=frozenset(columns.values()),
    )
