"""XLSX: the first visible sheet of a workbook, as a table."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from typing import BinaryIO, Protocol, cast

import openpyxl

from services.ingest.readers.rows import CHARACTERS_MAX, SHOWN_CHARACTERS, BadRow, Record
from services.kernel.errors import SettingsError

ZIP_MAGIC = b"PK\x03\x04"
OLD_EXCEL_MAGIC = b"\xd0\xcf\x11\xe0"

_SHARED_TEXTS_MAX_BYTES = 256 * 1024 * 1024
"""Unpacked. It is the one part of a workbook that openpyxl holds in memory whole."""


class _Sheet(Protocol):
    """A sheet as openpyxl reads it row by row, which its type stubs do not know."""

    sheet_state: str

    def reset_dimensions(self) -> None: ...

    def iter_rows(self, *, values_only: bool) -> Iterator[tuple[object, ...]]: ...


def read_workbook(stream: BinaryIO, name: str) -> Iterator[Record | BadRow]:
    """The records of the sheet, blank ones left out; line numbers are Excel's.

    Formulas count as the value that was saved with them. Raises `SettingsError` if the file is
    no workbook, even if that shows only on the way.
    """
    try:
        _check_size(stream, name)
        workbook = openpyxl.load_workbook(stream, read_only=True, data_only=True)
        try:
            yield from _records(_first_visible(cast("list[_Sheet]", workbook.worksheets)))
        finally:
            workbook.close()
    except SettingsError:
        raise
    except Exception as error:  # a broken workbook makes openpyxl raise nearly anything
        raise SettingsError(
            f"{name}: not a readable XLSX workbook ({type(error).__name__}: {error}); "
            "open it in a spreadsheet program and save it as .xlsx or as CSV in UTF-8"
        ) from error


def _check_size(stream: BinaryIO, name: str) -> None:
    with zipfile.ZipFile(stream) as archive:
        sizes = [part.file_size for part in archive.infolist() if "sharedStrings" in part.filename]
    if sum(sizes) > _SHARED_TEXTS_MAX_BYTES:
        raise SettingsError(
            f"{name}: its texts unpack to {sum(sizes)} bytes, at most {_SHARED_TEXTS_MAX_BYTES} "
            "fit; save the sheet as CSV in UTF-8"
        )


def _first_visible(sheets: list[_Sheet]) -> _Sheet:
    return next((sheet for sheet in sheets if sheet.sheet_state == "visible"), sheets[0])


def _records(sheet: _Sheet) -> Iterator[Record | BadRow]:
    # Some programs declare a sheet smaller than it is; without a declared size all rows come.
    sheet.reset_dimensions()
    for line, values in enumerate(sheet.iter_rows(values_only=True), start=1):
        cells = tuple(_text(value) for value in values)
        text = "\t".join(cells).rstrip("\t")
        if len(text) > CHARACTERS_MAX:
            reason = f"the row has more than {CHARACTERS_MAX} characters; is it a list of terms?"
            yield BadRow(line, text[:SHOWN_CHARACTERS], reason)
        elif text.strip():
            yield Record(line, cells, text)


def _text(value: object) -> str:
    if value is None:
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
