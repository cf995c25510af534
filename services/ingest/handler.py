"""Submissions in, accepted terms out: decode → normal form → identity."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from services.ingest.decode import (
    combined_hint,
    decode_submission,
    part_of_speech,
    unknown_fields,
)
from services.kernel import topology
from services.kernel.contracts.base import Batch, TermId
from services.kernel.contracts.identity import refusal_id, term_id
from services.kernel.contracts.term import Revision, TermAccepted, TermSubmitted
from services.kernel.errors import TermRefused
from services.kernel.korean.normal_form import NormalForm, normal_form
from services.kernel.stream.incoming import Identity, Incoming, Outgoing

FirstSequence = Callable[[str], Awaitable[int]]
"""The place in SUBMISSIONS of the first message on a subject."""

_SHOWN_CHARACTERS = 80
"""How much of a refused name a message repeats."""


def batch_of(subject: str) -> str:
    """The batch that a submission's subject names. Raises TermRefused."""
    if subject == "terms.submit":
        return topology.DEFAULT_BATCH
    name = subject.removeprefix("terms.submit.")
    if not topology.is_batch_name(name):
        raise _bad_batch_name("batch", name)
    return name


def _bad_batch_name(field: str, name: str) -> TermRefused:
    return TermRefused(
        field,
        "bad_batch_name",
        f"{name[:_SHOWN_CHARACTERS]!r} is no batch name; use 1-64 of A-Z a-z 0-9 _ - and begin "
        "with a letter or digit",
    )


def identify_submission(incoming: Incoming) -> Identity:
    """Before it is decoded a submission is known by its bytes."""
    try:
        batch = batch_of(incoming.subject)
    except TermRefused:
        batch = topology.UNREADABLE_BATCH
    return Identity(batch, refusal_id(incoming.data))


@dataclass(frozen=True)
class Submission:
    """A submission understood: its batch, what was said, and the term's normal form."""

    batch: Batch
    submitted: TermSubmitted
    form: NormalForm

    @property
    def term_id(self) -> TermId:
        return term_id(self.form.text, self.form.homonym)


def read_submission(subject: str, payload: bytes) -> Submission:
    """Pure; raises TermRefused with field and reason."""
    batch = batch_of(subject)
    submitted = decode_submission(payload)
    if submitted.revision is not None:
        _check_revision(submitted.revision, batch)
    return Submission(Batch(batch), submitted, normal_form(submitted.term))


def _check_revision(revision: Revision, batch: str) -> None:
    """A revision names its batches as subjects do, and stands in a batch of its own."""
    for field, name in (("revises", revision.revises), ("source", revision.source)):
        if not topology.is_batch_name(name):
            raise _bad_batch_name(f"revision.{field}", name)
    if revision.batch != batch:
        raise TermRefused(
            "revision",
            "wrong_batch",
            f"revision {revision.number} of {revision.revises!r} was published to {batch!r}; "
            f"publish it to terms.submit.{revision.batch}",
        )


def accepted_term(submission: Submission, incoming: Incoming, *, position: int) -> TermAccepted:
    submitted, form = submission.submitted, submission.form
    return TermAccepted(
        batch=submission.batch,
        term_id=submission.term_id,
        term=form.text,
        homonym=form.homonym,
        position=position,
        type=part_of_speech(submitted),
        deck=(submitted.deck or "").strip() or submission.batch,
        priority=submitted.priority,
        hint=combined_hint(submitted, form),
        sequence=incoming.sequence,
        submitted_at=incoming.published_at,
        revision=submitted.revision,
    )


class AcceptTerms:
    """The handler of ingest.

    A term without a position takes the order of arrival: its distance from the batch's first
    submission, which is the same at every redelivery.
    """

    def __init__(self, first_sequence: FirstSequence) -> None:
        self._first_sequence = first_sequence
        self._log = structlog.get_logger()

    async def __call__(self, incoming: Incoming, _ledger: object) -> Outgoing:
        submission = read_submission(incoming.subject, incoming.data)
        position = submission.submitted.position or await self._arrival(incoming)
        accepted = accepted_term(submission, incoming, position=position)
        if unknown := unknown_fields(incoming.data):
            self._log.info("fields.ignored", fields=unknown[:20])
        return Outgoing(
            topology.accepted_subject(accepted.batch, accepted.term_id),
            accepted.to_bytes(),
            accepted.priority,
        )

    async def _arrival(self, incoming: Incoming) -> int:
        first = await self._first_sequence(incoming.subject)
        return max(1, incoming.sequence - first + 1)
