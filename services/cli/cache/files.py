"""The cache as a file: one JSON object a line, packed by gzip where the name ends in .gz.

{"version": 1, "fingerprint": "…64 hexadecimal digits…", "completion": {"text": "…", …}}
"""

from __future__ import annotations

import gzip
import os
import sys
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Annotated, Any, Final, Literal, NamedTuple, cast

from nats.js import JetStreamContext
from pydantic import Field, ValidationError

from services.cli.cache.entries import Entry, keep_all
from services.kernel.contracts.base import Contract
from services.kernel.errors import SettingsError, TransientError
from services.kernel.llm.provider import Completion
from services.kernel.topology import MIB

STANDARD: Final = "-"
"""Standard output or input."""

_LINE_MAX_BYTES: Final = MIB
"""A server takes messages of 1 MiB, and a completion has some kilobytes."""
_PAGE: Final = 100
_NAME_MAX_CHARACTERS: Final = 200
_COST_MAX_USD: Final = 1_000
"""No completion costs that much: the line is damaged, or lies."""
_SHOWN_MAX: Final = 20
_PACKING: Final = 6
"""The usual level; the highest takes thrice the time for a few percent."""


class CacheLine(Contract):
    """One line of the file."""

    version: Literal[1] = 1
    fingerprint: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    completion: Completion


@dataclass
class Imported:
    """What an import came to, in lines; `refusals` are the first ones, by line and reason."""

    kept: int = 0
    present: int = 0
    overwritten: int = 0
    refused: int = 0
    refusals: list[tuple[int, str]] = field(default_factory=list)

    def refuse(self, line: int, reason: str) -> None:
        self.refused += 1
        if len(self.refusals) < _SHOWN_MAX:
            self.refusals.append((line, reason))

    def as_json(self) -> dict[str, Any]:
        return {
            "kept": self.kept,
            "present": self.present,
            "overwritten": self.overwritten,
            "refused": self.refused,
            "refusals": [{"line": line, "reason": reason} for line, reason in self.refusals],
        }


async def export_entries(entries: AsyncIterator[Entry], target: str) -> int:
    """Writes them to a file, which appears whole or not at all; how many there were.

    Raises SettingsError or TransientError where it can't be written.
    """
    count = 0
    with _written(target) as file:
        async for entry in entries:
            if entry.completion is None:
                continue  # Of another release: only that one can tell what it is.
            completion = entry.completion.model_copy(update={"kept_at": entry.kept_at})
            line = CacheLine(fingerprint=entry.fingerprint, completion=completion)
            file.write(line.to_bytes() + b"\n")
            count += 1
    return count


@contextmanager
def _written(target: str) -> Iterator[IO[bytes]]:
    if target == STANDARD:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path = Path(target)
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    try:
        with _translated(path), draft.open("wb") as raw:
            packed = gzip.GzipFile("", "wb", _PACKING, raw, mtime=0) if _is_packed(path) else None
            yield cast("IO[bytes]", packed or raw)
            if packed:
                packed.close()
            raw.flush()
            os.fsync(raw.fileno())
            draft.replace(path)
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError) as error:
        raise SettingsError(f"{path} can't be opened ({error.strerror}): name another") from error
    except TimeoutError:  # The server's, which is an OSError as well.
        raise
    except OSError as error:
        raise TransientError(
            f"{path} could not be written ({error.strerror or error}), and nothing is left of it: "
            "check the disk and its free space"
        ) from error


def size_of(source: str) -> int | None:
    """Of a file, in bytes; None for what has no size beforehand."""
    path = Path(source)
    return path.stat().st_size if path.is_file() else None


def _is_packed(path: Path) -> bool:
    return path.suffix == ".gz"


class _Read(NamedTuple):
    """One line, with what it says or why it is refused."""

    number: int
    line: CacheLine | None
    reason: str = ""


async def import_entries(
    js: JetStreamContext,
    source: str,
    *,
    overwrite: bool = False,
    on_read: Callable[[int], None] = lambda _bytes: None,
) -> Imported:
    """Puts every sound line into the cache; what is there stays, unless `overwrite`.

    May be repeated. `on_read` hears how many bytes of the file were read. Raises SettingsError for
    a file that can't be read, and Outage.
    """
    imported = Imported()
    page: list[tuple[int, CacheLine]] = []
    with _opened(source) as (file, position):
        read_before = 0
        for read in _lines(file, source):
            if read.line is None:
                imported.refuse(read.number, read.reason)
                continue
            page.append((read.number, read.line))
            if len(page) >= _PAGE:
                await _put(js, page, imported, overwrite=overwrite)
                page.clear()
                on_read(position() - read_before)
                read_before = position()
        await _put(js, page, imported, overwrite=overwrite)
    return imported


async def _put(
    js: JetStreamContext, page: list[tuple[int, CacheLine]], imported: Imported, *, overwrite: bool
) -> None:
    # Twice in one page: the first one, or with `overwrite` the last, as if they came one by one.
    pairs: dict[str, tuple[int, Completion]] = {}
    for number, line in page:
        if line.fingerprint in pairs and not overwrite:
            imported.present += 1
            continue
        imported.overwritten += line.fingerprint in pairs
        # The attempt that paid for it stands in another ledger.
        pairs[line.fingerprint] = number, line.completion.model_copy(update={"call_id": None})
    outcomes = await keep_all(js, [(f, c) for f, (_, c) in pairs.items()], overwrite=overwrite)
    for (number, _), outcome in zip(pairs.values(), outcomes, strict=True):
        match outcome:
            case "kept":
                imported.kept += 1
            case "present":
                imported.present += 1
            case "overwritten":
                imported.overwritten += 1
            case error:
                imported.refuse(number, str(error))


@contextmanager
def _opened(source: str) -> Iterator[tuple[IO[bytes], Callable[[], int]]]:
    """The lines' bytes, and how far the file itself was read."""
    if source == STANDARD:
        yield sys.stdin.buffer, lambda: 0
        return
    path = Path(source)
    try:
        raw = path.open("rb")
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror or error}; name a file to read") from error
    with raw:
        unpacked = gzip.GzipFile(fileobj=raw) if _is_packed(path) else raw
        yield cast("IO[bytes]", unpacked), raw.tell


def _lines(file: IO[bytes], source: str) -> Iterator[_Read]:
    number = 0
    try:
        while data := file.readline(_LINE_MAX_BYTES + 1):
            number += 1
            if len(data) > _LINE_MAX_BYTES:
                yield _Read(number, None, f"longer than {_LINE_MAX_BYTES:,} bytes")
                while data and not data.endswith(b"\n"):
                    data = file.readline(_LINE_MAX_BYTES)
            elif data.strip():
                yield _line(number, data)
    except (EOFError, OSError, zlib.error) as error:
        yield _Read(number + 1, None, f"{source} is damaged or cut off here: {error}")


def _line(number: int, data: bytes) -> _Read:
    try:
        line = CacheLine.model_validate_json(data)
    except ValidationError as error:
        fault = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in fault["loc"])
        return _Read(number, None, f"{where}: {fault['msg']}" if where else fault["msg"])
    reason = _unsound(line.completion)
    return _Read(number, None, reason) if reason else _Read(number, line)


def _unsound(completion: Completion) -> str:
    """Why a completion of the right form can't be one; empty when it may be."""
    if not completion.text.strip():
        return "completion.text: is empty"
    names = (completion.model, completion.provider, completion.prompt, completion.prompt_version)
    if any(name is not None and not 0 < len(name) <= _NAME_MAX_CHARACTERS for name in names):
        return f"completion: a name in it has not 1-{_NAME_MAX_CHARACTERS} characters"
    if completion.usage.cost_usd > _COST_MAX_USD:
        return f"completion.usage.cost_usd: over {_COST_MAX_USD} dollars for one completion"
    return ""
