"""From bytes to lines of text: which encoding a file has, and reading it in bounded memory.

The order is byte order mark, strict UTF-8, CP949. CP949 and not EUC-KR: Windows writes syllables
with it that EUC-KR lacks (뷁, 똠). A list in CP949 is hardly ever valid UTF-8; the other way
round accidents are common (café), so what fits UTF-8 is never guessed at.
"""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from services.ingest.readers.rows import CHARACTERS_MAX, SHOWN_CHARACTERS, Line
from services.kernel.errors import SettingsError

_CHUNK_BYTES = 256 * 1024

# UTF-32 first: its little-endian mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_WITHOUT_MARK = ("utf-8", "cp949")


@dataclass(frozen=True)
class _Fault:
    """The first byte that an encoding can't read, counted from 0, and its line, from 1."""

    offset: int
    line: int


@dataclass(frozen=True)
class TextFile:
    """A text whose encoding is known to fit from the first byte to the last."""

    stream: BinaryIO
    encoding: str
    begin: int
    """Where the text begins: behind the byte order mark."""

    def lines(self) -> Iterator[Line]:
        """All lines from the first; at most one run at a time, since it moves the stream.

        Lines end with LF, CRLF or CR. Of an overlong one only the beginning is kept.
        """
        self.stream.seek(self.begin)
        text = io.TextIOWrapper(self.stream, encoding=self.encoding, newline=None)
        try:
            number = 0
            while read := text.readline(CHARACTERS_MAX + 1):
                number += 1
                yield _line(number, read, text)
        finally:
            if not text.closed:  # closing is the caller's, and may have come first
                text.detach()


def open_text(stream: BinaryIO, name: str) -> TextFile:
    """Finds the encoding by reading the whole stream once, from where it stands.

    Raises `SettingsError` with the byte and line at which no encoding fits.
    """
    begin = stream.tell()
    first = stream.read(4)
    for mark, encoding in _MARKS:
        if first.startswith(mark):
            begin += len(mark)
            if fault := _first_fault(stream, encoding, begin):
                raise _undecodable(
                    name, fault, f"{encoding.upper()}, which its first bytes declare"
                )
            return TextFile(stream, encoding, begin)
    faults = []
    for encoding in _WITHOUT_MARK:
        fault = _first_fault(stream, encoding, begin)
        if fault is None:
            return TextFile(stream, encoding, begin)
        faults.append(fault)
    # The encoding that got further is the one that the file was meant to have.
    raise _undecodable(name, max(faults, key=lambda fault: fault.offset), "UTF-8 or CP949")


def _undecodable(name: str, fault: _Fault, expected: str) -> SettingsError:
    return SettingsError(
        f"{name}: byte {fault.offset} (line {fault.line}) is not {expected}; "
        "save the file as UTF-8 text and read it again"
    )


def _first_fault(stream: BinaryIO, encoding: str, begin: int) -> _Fault | None:
    stream.seek(begin)
    decoder = codecs.getincrementaldecoder(encoding)()
    line, end = 1, begin
    while True:
        chunk = stream.read(_CHUNK_BYTES)
        end += len(chunk)
        try:
            line += decoder.decode(chunk, final=not chunk).count("\n")
        except UnicodeDecodeError as error:
            # `object` is what the decoder had kept back and the chunk, so it ends where we are.
            offset = end - len(error.object) + error.start
            readable = error.object[: error.start].decode(encoding, "replace")
            return _Fault(offset, line + readable.count("\n"))
        if not chunk:
            return None


def _line(number: int, read: str, text: io.TextIOWrapper) -> Line:
    if read.endswith("\n"):
        return Line(number, read[:-1])
    if len(read) <= CHARACTERS_MAX:
        return Line(number, read)
    while (rest := text.readline(CHARACTERS_MAX)) and not rest.endswith("\n"):
        pass
    return Line(number, read[:SHOWN_CHARACTERS], is_overlong=True)
