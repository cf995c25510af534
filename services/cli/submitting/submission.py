"""A submission before it is sent: its rows, what ingest will refuse of them, its batch's name."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import PurePath
from typing import Any, Final

from services.cli.submitting.payloads import (
    STANDARD_INPUT,
    Payload,
    Unsendable,
    read_payloads,
    reason_of,
    understood,
)
from services.kernel.contracts.term import Priority
from services.kernel.errors import TermRefused

_NAME_MAX_CHARACTERS: Final = 64
_UNFIT = re.compile(r"[^A-Za-z0-9_-]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Problem:
    """A row that will not become a card. `published`: it went out, and its dead letter says why."""

    source: str
    line: int
    input: str
    reason: str
    published: bool

    def as_json(self) -> dict[str, Any]:
        return {
            "file": self.source,
            "line": self.line,
            "input": self.input,
            "reason": self.reason,
            "published": self.published,
        }


@dataclass
class Submission:
    """What was read. `unsendable` rows are not published; `refusals` are, and ingest keeps them."""

    payloads: list[Payload] = field(default_factory=list)
    unsendable: list[Problem] = field(default_factory=list)
    refusals: list[Problem] = field(default_factory=list)


def read_submission_files(
    sources: Iterable[str], *, deck: str | None = None, priority: Priority | None = None
) -> Submission:
    """All rows in memory, encoded, some 200 bytes each. Raises SettingsError for a bad source."""
    submission = Submission()
    for entry in read_payloads(sources, deck=deck, priority=priority):
        if isinstance(entry, Unsendable):
            problem = Problem(entry.source, entry.line, entry.input, entry.reason, published=False)
            submission.unsendable.append(problem)
            continue
        submission.payloads.append(entry)
        try:
            understood(entry)
        except TermRefused as refusal:
            submission.refusals.append(problem_of(entry, reason_of(refusal), published=True))
    return submission


def problem_of(payload: Payload, reason: str, *, published: bool) -> Problem:
    return Problem(payload.source, payload.line, payload.term, reason, published)


def default_batch(source: str, now: datetime) -> str:
    """`vocabulary-20260504-120000-123` for vocabulary.csv; `terms-…` for 단어장.csv."""
    stem = "" if source == STANDARD_INPUT else PurePath(source).stem
    suffix = now.strftime("-%Y%m%d-%H%M%S-") + f"{now.microsecond // 1000:03d}"
    fit = _UNFIT.sub("-", stem)[: _NAME_MAX_CHARACTERS - len(suffix)].strip("-_")
    return f"{fit or 'terms'}{suffix}"
