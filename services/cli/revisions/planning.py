"""What a revision consists of: its name, its number, and a submission for each of its terms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from nats.js import JetStreamContext
from pydantic import ValidationError

from services.cli.revisions.checkpoints import (
    CHECKPOINTS,
    Begun,
    Held,
    Stage,
    begun_revision,
    half_done,
    root_of,
    taken_numbers,
    terms_of,
)
from services.cli.submitting.batch_status import is_known, known_batches, unknown_batch
from services.cli.submitting.payloads import Payload, reason_of
from services.cli.submitting.submission import Problem
from services.ingest.handler import read_submission
from services.kernel import topology
from services.kernel.contracts.base import TermId
from services.kernel.contracts.term import Revision, TermSubmitted
from services.kernel.errors import PipelineError, TermRefused

DEFAULT_STAGE: Final[Stage] = 2
_BATCH_MAX_CHARACTERS: Final = 64


class CannotRegenerate(PipelineError):
    """There is no such revision to make; the message says why and what to do."""


@dataclass(frozen=True)
class Wanted:
    """What was asked for. `number` completes the revision that was begun with it."""

    batch: str
    stage: Stage | None = None
    model: str | None = None
    number: int | None = None


@dataclass(frozen=True)
class Plan:
    """A revision before it is published.

    `payloads` are in the order of the deck, without the terms of the `arrived` submissions.
    `problems`: terms that ingest would take for others, or refuse.
    """

    revision: Revision
    arrived: int = 0
    payloads: list[Payload] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    @property
    def batch(self) -> str:
        return self.revision.batch

    @property
    def most_calls(self) -> int:
        """To a model, when none of them fails and none is answered from the cache."""
        return len(self.payloads) * (2 if self.revision.stage == 1 else 1)


async def plan_revision(
    js: JetStreamContext, wanted: Wanted, *, on_read: Callable[[], None] = lambda: None
) -> Plan:
    """Reads the checkpoint of the wanted stage. Raises CannotRegenerate."""
    if not await is_known(js, wanted.batch):
        raise CannotRegenerate(unknown_batch(wanted.batch, await known_batches(js)))
    root = await root_of(js, wanted.batch)
    taken = await taken_numbers(js, root)
    number = await _number(js, root, taken, wanted.number)
    revision = _revision(root, number, wanted)
    begun = Begun()
    if wanted.number is not None:
        begun = await begun_revision(js, revision.batch, root)
        revision = _as_begun(revision, begun, wanted)
    sources = [root, *(_name(root, each) for each in taken if each < number)]
    return await _planned(js, revision, begun, sources, on_read)


def _name(root: str, number: int) -> str:
    return f"{root}-r{number}"


async def _number(js: JetStreamContext, root: str, taken: list[int], wanted: int | None) -> int:
    if wanted is None:
        newest = max(taken, default=1)
        if taken and (part := await half_done(js, _name(root, newest), root)):
            raise CannotRegenerate(
                f"revision {newest} of {root} was begun and is not whole: {part[0]:,} of "
                f"{part[1]:,} terms were published. Unless somebody is publishing it now, "
                f"complete it: cardflow regenerate --batch {root} --revision {newest}"
            )
        return newest + 1
    if wanted not in taken:
        raise CannotRegenerate(
            f"there is no revision {wanted} of {root} to complete; there are: "
            f"{', '.join(map(str, taken)) or 'none'}. Without --revision the next one is made"
        )
    return wanted


def _revision(root: str, number: int, wanted: Wanted) -> Revision:
    name = _name(root, number)
    if not topology.is_batch_name(name):
        raise CannotRegenerate(
            f"the revision would be named {name}, which has {len(name)} characters; a batch name "
            f"has at most {_BATCH_MAX_CHARACTERS}: submit the terms under a shorter name instead"
        )
    return Revision.model_validate(
        {
            "revises": root,
            "number": number,
            "source": root,
            "stage": wanted.stage or DEFAULT_STAGE,
            "model": wanted.model,
        }
    )


def _as_begun(revision: Revision, begun: Begun, wanted: Wanted) -> Revision:
    """The revision as its first terms have it: one revision is made in one way."""
    if begun.revision is None:
        if begun.messages:
            raise CannotRegenerate(
                f"{revision.batch} is a batch of its own, no revision of {revision.revises}"
            )
        return revision
    said = begun.revision
    if wanted.stage not in (None, said.stage) or wanted.model not in (None, said.model):
        raise CannotRegenerate(
            f"revision {revision.number} of {revision.revises} was begun from stage {said.stage} "
            f"with {f'the model {said.model}' if said.model else 'the model of the settings'}; "
            "complete it in that way (leave out --stage and --model), or make the next one"
        )
    return said


async def _planned(
    js: JetStreamContext,
    revision: Revision,
    begun: Begun,
    sources: list[str],
    on_read: Callable[[], None],
) -> Plan:
    newest: dict[TermId, Payload | Problem] = {}
    for source in sources:
        own = revision.model_copy(update={"source": source})
        async for held in terms_of(js, source, revision.revises, revision.stage):
            newest[held.term_id] = _submission_of(held, own)
            on_read()
    if not newest:
        raise CannotRegenerate(
            f"the stream {CHECKPOINTS[revision.stage].stream} holds no terms of "
            f"{revision.revises}: none have come so far, or they are forgotten. "
            + ("Try --stage 1" if revision.stage > 1 else "Submit them again")
        )
    plan = Plan(revision, arrived=begun.messages)
    for entry in sorted((e for i, e in newest.items() if i not in begun.term_ids), key=_place):
        if isinstance(entry, Payload):
            plan.payloads.append(entry)
        else:
            plan.problems.append(entry)
    return plan


def _place(entry: Payload | Problem) -> tuple[int, str]:
    return entry.line, entry.term if isinstance(entry, Payload) else entry.input


def _submission_of(held: Held, revision: Revision) -> Payload | Problem:
    """What to publish for a term; its `line` is the term's position."""
    source, accepted = revision.source, held.accepted
    if accepted is None:
        reason = "its event was written by another release, which this one can't read"
        return Problem(source, 0, held.term_id, reason, published=False)
    position = accepted.position
    # With the zero 배12 is the twelfth 배, and not the first with a 2 behind it.
    term = accepted.term if accepted.homonym is None else f"{accepted.term}0{accepted.homonym}"
    try:
        body = TermSubmitted(
            term=term,
            position=position,
            type=accepted.type,
            deck=accepted.deck,
            priority=accepted.priority,
            hint=accepted.hint,
            revision=revision,
        ).to_bytes()
        term_id = read_submission(topology.submit_subject(revision.batch), body).term_id
    except TermRefused as refusal:
        return Problem(source, position, term, reason_of(refusal), published=False)
    except ValidationError as error:
        return Problem(source, position, term, str(error), published=False)
    if term_id != held.term_id:
        reason = "ingest would take it for another term than the one that was accepted"
        return Problem(source, position, term, reason, published=False)
    return Payload(source, position, body, is_placed=True)
