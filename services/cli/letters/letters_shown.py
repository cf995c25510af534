"""How dead letters look: a row, a story for people, JSON for programs."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Final

from rich.table import Table
from rich.text import Text

from services.cli.letters.letters import Letter
from services.cli.printable import printable
from services.kernel.contracts.attempt import Attempt

_ID_SHOWN_CHARACTERS: Final = 8
"""Enough to tell a million ids apart, mostly; where it is not, `show` names the candidates."""
_SHOWN_CHARACTERS: Final = 4_000
"""Of one value; `--json` has all of it."""


def as_row(letter: Letter) -> dict[str, Any]:
    """What `list` says of one, for programs."""
    record = letter.record
    return {
        "id": letter.address,
        "letter_id": record.letter_id,
        "service": record.service,
        "batch": record.batch,
        "term": record.term,
        "field": record.field,
        "reason": record.reason,
        "message": record.message,
        "attempts": _attempts(letter),
        "calls": record.history.calls,
        "cost_usd": float(record.history.cost_usd),
        "replays": letter.replays,
        "first_at": record.first_at.isoformat(),
        "last_at": record.last_at.isoformat(),
        "discarded_at": record.discarded_at and record.discarded_at.isoformat(),
        "note": record.note,
    }


def as_json(letter: Letter) -> dict[str, Any]:
    """The whole record; the payload as text where it is UTF-8, and always in base64."""
    record = letter.record.model_dump(mode="json", exclude={"history", "original_payload"})
    attempts = [attempt.model_dump(mode="json") for attempt in letter.record.history.attempts]
    payload = letter.record.original_payload
    return {
        **as_row(letter),
        **record,
        "history": attempts,
        "original_payload": _text_of(payload),
        "original_payload_base64": base64.b64encode(payload).decode("ascii"),
    }


def table_of(letters: Sequence[Letter]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("service", "batch", "id", "term", "reason"):
        table.add_column(column, overflow="fold", no_wrap=column in ("service", "id"))
    for column in ("attempts", "cost $", "since"):
        table.add_column(column, justify="right", no_wrap=True)
    for letter in letters:
        record = letter.record
        values = (
            record.service,
            record.batch,
            letter.subject.split(".")[-1][:_ID_SHOWN_CHARACTERS],
            record.term or "",
            record.reason + (" (discarded)" if letter.is_discarded else ""),
            str(_attempts(letter)),
            _money(record.history.cost_usd),
            f"{record.last_at.astimezone():%m-%d %H:%M}",
        )
        table.add_row(*(Text(printable(value)) for value in values))
    return table


def as_story(letter: Letter) -> Text:
    """All of one letter, line by line; nothing of it is taken for markup."""
    story = Text()
    for name, value in _facts(letter):
        story.append(f"{name:<10}", style="bold")
        story.append(f"{printable(value, _SHOWN_CHARACTERS)}\n")
    return story


def _facts(letter: Letter) -> Iterator[tuple[str, str]]:
    record = letter.record
    yield "id", letter.address
    yield "term", record.term or "(none)"
    if record.field:
        yield "field", record.field
    yield "reason", record.reason
    yield "message", f"{record.error}: {record.message}"
    for cause in record.causes:
        yield "because", cause
    yield "first", _time(record.first_at)
    yield "given up", _time(record.last_at)
    if record.discarded_at:
        yield "discarded", f"{_time(record.discarded_at)}: {record.note}"
    yield "replays", str(letter.replays)
    yield "calls", f"{record.history.calls}, {_money(record.history.cost_usd)} $"
    for number, attempt in enumerate(record.history.attempts, 1):
        yield f"attempt {number}", _attempt(attempt)
    yield "subject", record.original_subject
    for name, value in record.original_headers.items():
        yield "header", f"{name}: {value}"
    yield "payload", _payload(record.original_payload)


def _attempt(attempt: Attempt) -> str:
    took = ""
    if attempt.finished_at:
        took = f", {(attempt.finished_at - attempt.started_at).total_seconds():.3f} s"
    cost = f", {_money(attempt.cost_usd)} $" if attempt.cost_usd else ""
    error = f": {attempt.error}" if attempt.error else ""
    return f"{attempt.outcome} {_time(attempt.started_at)}{took}{cost}{error}"


def _payload(payload: bytes) -> str:
    text = _text_of(payload)
    if text is None:
        text = f"{len(payload)} bytes, not UTF-8: {payload!r}"
    return text


def _text_of(payload: bytes) -> str | None:
    try:
        return payload.decode()
    except UnicodeDecodeError:
        return None


def _attempts(letter: Letter) -> int:
    """Over all replays; those that were throttled are none."""
    return sum(a.outcome != "throttled" for a in letter.record.history.attempts)


def _time(moment: datetime) -> str:
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _money(amount: object) -> str:
    return f"{amount:.6f}"
