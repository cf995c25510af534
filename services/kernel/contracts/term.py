"""A term, as a publisher sends it and as ingest accepts it."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field, field_validator

from services.kernel.contracts.base import Batch, Contract, PartOfSpeech, TermId

Priority = Literal["urgent", "normal", "bulk"]

TERM_MAX_CHARACTERS = 100
HINT_MAX_CHARACTERS = 500
DECK_MAX_CHARACTERS = 200
POSITION_MAX = 2**31 - 1
"""Fits the integers of every database and spreadsheet that a deck ends in."""
REVISION_MAX = POSITION_MAX
MODEL_MAX_CHARACTERS = 200


class Revision(Contract):
    """That a term is made anew: its batch is a revision of the batch `revises`.

    `number` counts the revisions of that batch; the batch itself is 1. `stage` is the first stage
    that asks a model again; an earlier one takes its result from the batch `source`. `model` asks
    another model than the settings name. A regenerated stage never takes an earlier revision's
    completion: `number` is part of its fingerprint.
    """

    revises: Batch
    number: int = Field(ge=2, le=REVISION_MAX)
    source: Batch
    stage: Literal[1, 2]
    model: str | None = Field(default=None, min_length=1, max_length=MODEL_MAX_CHARACTERS)

    @property
    def batch(self) -> Batch:
        """The name of the revision itself. Its number decides it, and so finds it again."""
        return Batch(f"{self.revises}-r{self.number}")


class TermSubmitted(Contract):
    """What a publisher may send to `terms.submit.<batch>`; a bare text stands for `term` alone.

    `type` is a part of speech or free text; free text is kept as a hint.
    """

    term: str
    position: int | None = Field(default=None, ge=1, le=POSITION_MAX)
    type: str | None = None
    deck: str | None = Field(default=None, max_length=DECK_MAX_CHARACTERS)
    priority: Priority = "normal"
    hint: str | None = Field(default=None, max_length=HINT_MAX_CHARACTERS)
    revision: Revision | None = None

    @field_validator("position", mode="before")
    @classmethod
    def _no_truth_value(cls, value: Any) -> Any:
        if isinstance(value, bool):
            raise ValueError("true and false are no position; send an integer")
        return value


class TermAccepted(Contract):
    """A term in its normal form, identified; the event on TERMS.

    `position` orders the deck (from 1). `homonym` is the dictionary's homonym number.
    `sequence` is the submission's place in SUBMISSIONS.
    """

    version: Literal[1] = 1
    batch: Batch
    term_id: TermId
    term: str = Field(min_length=1, max_length=TERM_MAX_CHARACTERS)
    homonym: int | None = None
    position: int = Field(ge=1)
    type: PartOfSpeech | None = None
    deck: str
    priority: Priority = "normal"
    hint: str | None = Field(default=None, max_length=HINT_MAX_CHARACTERS)
    sequence: int = Field(ge=0)
    submitted_at: datetime
    revision: Revision | None = None
