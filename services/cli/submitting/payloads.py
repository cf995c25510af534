"""Rows of word lists as what is published for them, and what ingest will say of it.

`submit`, `check` and `demo` come by here, so that their verdicts agree with each other and, by
`services.ingest.handler.read_submission`, with ingest.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from services.ingest.handler import Submission, read_submission
from services.ingest.readers import BadRow, Row, read_rows
from services.kernel import topology
from services.kernel.contracts.term import Priority
from services.kernel.errors import TermRefused

STANDARD_INPUT: Final = "-"

_ADDED_MAX_BYTES: Final = 256
"""For a position and the headers: the stream's bound holds for all of the message."""


@dataclass(frozen=True, slots=True)
class Payload:
    """One submission, encoded. `line` counts from 1 in `source`, as people see the file.

    `is_placed`: the row names its position itself.
    """

    source: str
    line: int
    body: bytes
    is_placed: bool

    @property
    def term(self) -> str:
        """The term as it was written."""
        return str(json.loads(self.body)["term"])

    def at(self, position: int) -> bytes:
        """What is published; `position` holds where the row names none."""
        if self.is_placed:
            return self.body
        return self.body[:-1] + f', "position": {position}}}'.encode()


@dataclass(frozen=True, slots=True)
class Unsendable:
    """A row that is never published, and why."""

    source: str
    line: int
    input: str
    reason: str


def read_payloads(
    sources: Iterable[str], *, deck: str | None = None, priority: Priority | None = None
) -> Iterator[Payload | Unsendable]:
    """The rows of all sources in their order; `-` is standard input.

    `deck` and `priority` hold for every row, whatever the row says. Raises SettingsError for a
    source that can't be read.
    """
    given = {name: value for name, value in (("deck", deck), ("priority", priority)) if value}
    for source in sources:
        for row in read_rows(_opened(source), name=source):
            if isinstance(row, BadRow):
                yield Unsendable(source, row.line, row.text, row.reason)
            else:
                yield _payload(source, row, given)


def understood(payload: Payload, batch: str = topology.DEFAULT_BATCH) -> Submission:
    """What ingest will make of it. Raises TermRefused as ingest will."""
    return read_submission(topology.submit_subject(batch), payload.body)


def reason_of(refusal: TermRefused) -> str:
    """`field: code: detail`."""
    return f"{refusal.field}: {refusal.reason}: {refusal.detail}"


def _opened(source: str) -> Path | BinaryIO:
    return sys.stdin.buffer if source == STANDARD_INPUT else Path(source)


def _payload(source: str, row: Row, given: Mapping[str, str]) -> Payload | Unsendable:
    fields = {**row.fields, **given}
    # Half a surrogate pair becomes its JSON escape, which ingest refuses by name.
    body = json.dumps(fields, ensure_ascii=False).encode("utf-8", "backslashreplace")
    size = len(body) + _ADDED_MAX_BYTES
    if size > topology.SUBMISSION_MAX_BYTES:
        bound = topology.SUBMISSION_MAX_BYTES
        reason = (
            f"the row has {size:,} bytes with headers, at most {bound:,} can be published; "
            "a term with its hint needs under 4 KiB"
        )
        return Unsendable(source, row.line, str(fields["term"])[:200], reason)
    return Payload(source, row.line, body, is_placed="position" in fields)
