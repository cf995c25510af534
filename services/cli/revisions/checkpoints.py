"""What the streams hold of a batch and its revisions.

A revision names what it revises in each of its terms, and there alone: a batch of another origin
may be named alike.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from nats.js import JetStreamContext
from nats.js.errors import NotFoundError
from pydantic import ValidationError

from services.cli.submitting.batch_status import cancellation_of
from services.ingest.handler import read_submission
from services.kernel import topology
from services.kernel.contracts.analysis import TermAnalyzed
from services.kernel.contracts.base import TermId
from services.kernel.contracts.batch import BatchOpened
from services.kernel.contracts.term import Revision, TermAccepted
from services.kernel.errors import TermRefused
from services.kernel.stream.reading import last_message, messages_of, subjects_of

Stage = Literal[1, 2]


class Checkpoint(NamedTuple):
    """The stream that a stage reads, and how an event on it says which term it is about."""

    stream: str
    subject_of: Callable[[str, str], str]
    accepted_in: Callable[[bytes], TermAccepted]


CHECKPOINTS: Final[dict[Stage, Checkpoint]] = {
    1: Checkpoint(topology.TERMS.name, topology.accepted_subject, TermAccepted.model_validate_json),
    2: Checkpoint(
        topology.ANALYSES.name,
        topology.analyzed_subject,
        lambda data: TermAnalyzed.model_validate_json(data).accepted,
    ),
}

_BATCH_TOKENS: Final = {
    "batches.*.*": (topology.BATCHES, 1),
    "terms.submit.*": (topology.SUBMISSIONS, 2),
    topology.accepted_subject("*", "*"): (topology.TERMS, 2),
    topology.analyzed_subject("*", "*"): (topology.ANALYSES, 2),
    topology.finished_subject("*", "*"): (topology.CARDS, 2),
    topology.dead_subject("*", "*", "*"): (topology.DEAD_LETTERS, 2),
    topology.cancelled_subject("*", "*", "*"): (topology.DEAD_LETTERS, 2),
}
"""Every subject that names a batch, its stream, and where in it the batch stands."""


async def root_of(js: JetStreamContext, batch: str) -> str:
    """The batch that this one is a revision of, by its newest term; itself when it is none."""
    for checkpoint in CHECKPOINTS.values():
        try:
            newest = await js.get_last_msg(checkpoint.stream, checkpoint.subject_of(batch, "*"))
            revision = checkpoint.accepted_in(newest.data or b"").revision
        except (NotFoundError, ValidationError):
            continue
        return revision.revises if revision else batch
    return batch


async def taken_numbers(js: JetStreamContext, root: str) -> list[int]:
    """The numbers after `<root>-r` in the names of batches that any stream knows, ascending."""
    named = re.compile(rf"{re.escape(root)}-r([1-9][0-9]*)", re.ASCII)
    numbers = set()
    for subjects, (stream, place) in _BATCH_TOKENS.items():
        names = {s.split(".")[place] for s in await subjects_of(js, stream.name, subjects)}
        numbers |= {int(found[1]) for found in map(named.fullmatch, names) if found}
    return sorted(numbers - {1})


class Held(NamedTuple):
    """A term in a checkpoint; `accepted` is None where this release can't read the event."""

    term_id: TermId
    accepted: TermAccepted | None


async def terms_of(
    js: JetStreamContext, batch: str, root: str, stage: Stage
) -> AsyncIterator[Held]:
    """The terms that the root, or a revision of it, has in the stage's checkpoint.

    Terms of another origin in a batch that is named alike are left out.
    """
    checkpoint = CHECKPOINTS[stage]
    async for message in messages_of(js, checkpoint.stream, checkpoint.subject_of(batch, "*")):
        term_id = TermId(message.subject.rpartition(".")[2])
        try:
            accepted = checkpoint.accepted_in(message.data)
        except ValidationError:
            yield Held(term_id, None)
            continue
        revises = accepted.revision.revises if accepted.revision else batch
        if revises == root:
            yield Held(term_id, accepted)


@dataclass(frozen=True)
class Begun:
    """What was published of a revision so far. `messages` may name a term more than once."""

    revision: Revision | None = None
    term_ids: frozenset[TermId] = frozenset()
    messages: int = 0


async def begun_revision(js: JetStreamContext, batch: str, root: str) -> Begun:
    """The submissions of a revision; without a `revision` in it when there is none of this root."""
    revision, term_ids, messages = None, set(), 0
    async for message in messages_of(js, topology.SUBMISSIONS.name, topology.submit_subject(batch)):
        messages += 1
        try:
            submission = read_submission(message.subject, message.data)
        except TermRefused:
            continue
        said = submission.submitted.revision
        if said is not None and said.revises == root:
            revision = revision or said
            term_ids.add(submission.term_id)
    return Begun(revision, frozenset(term_ids), messages)


async def half_done(js: JetStreamContext, batch: str, root: str) -> tuple[int, int] | None:
    """How many terms of how many were published of a revision that was cut off, else None.

    A publisher that was killed, or is still at work, has declared more than has arrived.
    """
    opened = await last_message(js, topology.BATCHES.name, topology.batch_subject(batch, "opened"))
    if opened is None or await cancellation_of(js, batch) is not None:
        return None
    subject = topology.submit_subject(batch)
    expected = BatchOpened.model_validate_json(opened).expected
    arrived = sum((await subjects_of(js, topology.SUBMISSIONS.name, subject)).values())
    newest = await last_message(js, topology.SUBMISSIONS.name, subject)
    if arrived >= expected or (newest is not None and _revised_in(subject, newest) != root):
        return None
    return arrived, expected


def _revised_in(subject: str, payload: bytes) -> str | None:
    try:
        revision = read_submission(subject, payload).submitted.revision
    except TermRefused:
        return None
    return revision.revises if revision else None
