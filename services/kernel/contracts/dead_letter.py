"""A message given up on, with all that is needed to understand it and to send it again."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import ConfigDict, Field

from services.kernel.contracts.attempt import AttemptHistory
from services.kernel.contracts.base import Contract


class DeadLetter(Contract):
    """The event on DEAD_LETTERS.

    `letter_id` is the term's id, or a hash of the payload where there is no term. `reason` is a
    short code, `message` the whole story, `causes` the chain behind it, nearest first.

    A cancelled term has the same record, with the reason `cancelled`, on a subject of its own.
    `first_at` is when the message first stood on its stream, over all replays.

    A letter that a person decided against keeps standing, so that its term stays accounted for:
    `discarded_at` says when, `note` why. Both are None while it waits.
    """

    model_config = ConfigDict(
        frozen=True, extra="ignore", ser_json_bytes="base64", val_json_bytes="base64"
    )

    version: Literal[1] = 1
    letter_id: str
    service: str
    batch: str
    term: str | None = None
    field: str | None = None
    reason: str
    error: str
    message: str
    causes: tuple[str, ...] = ()
    history: AttemptHistory = AttemptHistory()
    original_subject: str
    original_headers: dict[str, str] = Field(default_factory=dict)
    original_payload: bytes
    first_at: datetime
    last_at: datetime
    discarded_at: datetime | None = None
    note: str | None = None
