"""Making a dead letter of a message that is given up on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime

from services.kernel import topology
from services.kernel.contracts.attempt import AttemptHistory
from services.kernel.contracts.dead_letter import DeadLetter
from services.kernel.errors import TermRefused
from services.kernel.stream.incoming import Identity, Incoming

_MESSAGE_MAX_CHARACTERS = 2_000
_CAUSES_MAX = 5


def dead_letter(
    service: str,
    incoming: Incoming,
    identity: Identity,
    *,
    reason: str,
    error: Exception,
    history: AttemptHistory,
) -> DeadLetter:
    """All that is known of a message at its end."""
    return DeadLetter(
        letter_id=identity.id,
        service=service,
        batch=identity.batch,
        term=_term_in(incoming.data),
        field=error.field if isinstance(error, TermRefused) else None,
        reason=reason,
        error=type(error).__name__,
        message=_shortened(str(error)),
        causes=tuple(_causes(error)),
        history=history,
        original_subject=incoming.subject,
        original_headers=dict(incoming.headers),
        original_payload=incoming.data,
        first_at=incoming.first_at,
        last_at=datetime.now(UTC),
    )


CANCELLED = "cancelled"
"""The reason on the record of a term whose batch was cancelled."""


def subject_of(letter: DeadLetter) -> str:
    if letter.reason == CANCELLED:
        return topology.cancelled_subject(letter.service, letter.batch, letter.letter_id)
    return topology.dead_subject(letter.service, letter.batch, letter.letter_id)


def _term_in(payload: bytes) -> str | None:
    """The term, as far as the payload shows one: for people who look through dead letters."""
    try:
        event = json.loads(payload)
    except (ValueError, RecursionError):
        return _shortened(payload[:200].decode("utf-8", "replace")) or None
    if isinstance(event, dict):
        event = event.get("accepted", event)
        event = event.get("term") if isinstance(event, dict) else None
    return _shortened(event)[:200] if isinstance(event, str) else None


def _causes(error: BaseException) -> Iterator[str]:
    cause = error.__cause__ or error.__context__
    for _ in range(_CAUSES_MAX):
        if cause is None:
            return
        yield _shortened(f"{type(cause).__name__}: {cause}")
        cause = cause.__cause__ or cause.__context__


def _shortened(text: str) -> str:
    """Bounded, and free of lone surrogates, which no JSON can carry."""
    clean = text.encode("utf-8", "replace").decode("utf-8")
    if len(clean) <= _MESSAGE_MAX_CHARACTERS:
        return clean
    return clean[: _MESSAGE_MAX_CHARACTERS - 1] + "…"
