"""Reading what the audit needs from the streams, while the pipeline may be at work.

The order matters: first how far the consumers are, then the streams from the last to the first. A
term that moves on meanwhile is then seen in the earlier place at worst, never in none.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Final

from nats.js import JetStreamContext
from nats.js.errors import NotFoundError
from pydantic import ValidationError

from services.cli.accounts.accounting import STAGES, AttemptsKey, BatchRecord, Paid, Submission
from services.ingest.handler import batch_of, read_submission
from services.kernel import topology
from services.kernel.contracts.attempt import AttemptHistory
from services.kernel.contracts.card import CardsFinished
from services.kernel.contracts.identity import refusal_id
from services.kernel.contracts.provenance import StageProvenance
from services.kernel.errors import TermRefused
from services.kernel.stream.reading import messages_of, subjects_of, submission_subjects

_AT_ONCE: Final = 100
_KV_MARKER: Final = "KV-Operation"
"""The header of the marker that a deleted key leaves."""

Ids = defaultdict[str, set[str]]
"""Ids by batch."""
Submissions = defaultdict[str, list[Submission]]


@dataclass(frozen=True)
class _Finished:
    """What the finished cards of each batch say; `misplaced` can't be what their subject says."""

    paid: defaultdict[str, dict[str, tuple[Paid, Paid]]] = field(
        default_factory=lambda: defaultdict(dict)
    )
    misplaced: Ids = field(default_factory=lambda: defaultdict(set))


async def read_batches(js: JetStreamContext, batch: str | None) -> list[BatchRecord]:
    """The record of one batch or, for None, of every batch that any stream knows."""
    floors = {name: await _floor(js, name) for name in topology.SERVICES}
    # Between the two: what a main consumer has left to a lane is there, or ends before it is read.
    in_lanes = await _ids(js, topology.LANES, f"lanes.*.*.{batch or '*'}.*")
    finished = await _finished(js, batch)
    place = (batch or "*", "*")
    dead = {
        name: await _ids(js, topology.DEAD_LETTERS, topology.dead_subject(name, *place))
        for name in topology.SERVICES
    }
    cancelled = {
        name: await _ids(js, topology.DEAD_LETTERS, topology.cancelled_subject(name, *place))
        for name in STAGES
    }
    analyzed = await _ids(js, topology.ANALYSES, topology.analyzed_subject(*place))
    accepted = await _ids(js, topology.TERMS, topology.accepted_subject(*place))
    submissions = await _submissions(js, batch)
    forgotten = await _has_forgotten(js)
    seen: list[Mapping[str, object]] = [finished.paid, analyzed, accepted, submissions]
    seen += [*dead.values(), *cancelled.values()]
    records = [
        BatchRecord(
            batch=name,
            submissions=tuple(submissions[name]),
            ingest_floor=floors["ingest"],
            accepted=frozenset(accepted[name]),
            analyzed=frozenset(analyzed[name]),
            finished=finished.paid[name],
            refused=frozenset(dead["ingest"][name]),
            dead={stage: frozenset(dead[stage][name]) for stage in STAGES},
            cancelled={stage: frozenset(cancelled[stage][name]) for stage in STAGES},
            not_stored=frozenset(dead["exporter"][name]),
            misplaced=frozenset(finished.misplaced[name]),
            forgotten=forgotten,
        )
        for name in sorted({name for ids in seen for name in ids})
    ]
    return [
        replace(r, awaited=await _awaited(js, r, floors) | (r.in_flight & in_lanes[r.batch]))
        for r in records
    ]


async def read_attempts(js: JetStreamContext) -> dict[AttemptsKey, AttemptHistory]:
    """Every record of every batch."""
    histories = {}
    bucket = topology.ATTEMPTS.name
    async for message in messages_of(js, f"KV_{bucket}", f"$KV.{bucket}.>"):
        if _KV_MARKER not in (message.headers or {}):
            service, batch, id_ = message.subject.split(".")[-3:]
            key = AttemptsKey(service, batch, id_)
            histories[key] = AttemptHistory.model_validate_json(message.data)
    return histories


async def _floor(js: JetStreamContext, service: topology.ServiceName) -> int:
    """Up to this place of its stream the service has answered everything; 0 without it."""
    consumer = topology.CONSUMERS[service]
    try:
        info = await js.consumer_info(consumer.stream, consumer.durable)
    except NotFoundError:
        return 0
    return info.ack_floor.stream_seq if info.ack_floor else 0


async def _ids(js: JetStreamContext, stream: topology.Stream, subjects: str) -> Ids:
    """The ids on subjects that end in `<batch>.<id>`."""
    ids: Ids = defaultdict(set)
    for subject in await subjects_of(js, stream.name, subjects):
        name, id_ = subject.split(".")[-2:]
        ids[name].add(id_)
    return ids


async def _finished(js: JetStreamContext, batch: str | None) -> _Finished:
    finished = _Finished()
    subjects = topology.finished_subject(batch or "*", "*")
    async for message in messages_of(js, topology.CARDS.name, subjects):
        name, id_ = message.subject.split(".")[-2:]
        try:
            cards = CardsFinished.model_validate_json(message.data)
        except ValidationError:
            nothing = Paid(0, Decimal(0), cached=False)
            finished.paid[name][id_] = (nothing, nothing)
            finished.misplaced[name].add(id_)
            continue
        finished.paid[name][id_] = (_paid(cards.stage1), _paid(cards.stage2))
        if (name, id_) != (cards.batch, cards.term_id):
            finished.misplaced[name].add(id_)
    return finished


def _paid(stage: StageProvenance) -> Paid:
    return Paid(stage.calls, stage.cost_usd, stage.cached)


async def _submissions(
    js: JetStreamContext, batch: str | None
) -> defaultdict[str, list[Submission]]:
    submissions: defaultdict[str, list[Submission]] = defaultdict(list)
    for subjects in _submission_filters(batch):
        async for message in messages_of(js, topology.SUBMISSIONS.name, subjects):
            name = _batch_named(message.subject)
            if batch in (None, name):
                sequence = message.metadata.sequence.stream
                submissions[name].append(_submission(sequence, message.subject, message.data))
    return submissions


def _submission_filters(batch: str | None) -> list[str]:
    """A subject that names no valid batch can be any."""
    if batch in (None, topology.UNREADABLE_BATCH):
        return ["terms.submit", "terms.submit.>"]
    return submission_subjects(batch or "")


def _batch_named(subject: str) -> str:
    try:
        return batch_of(subject)
    except TermRefused:
        return topology.UNREADABLE_BATCH


def _submission(sequence: int, subject: str, payload: bytes) -> Submission:
    try:
        id_ = read_submission(subject, payload).term_id
    except Exception:
        # Whatever ingest could not read either, it refused by its bytes.
        return Submission(sequence, None, refusal_id(payload))
    return Submission(sequence, id_, refusal_id(payload))


async def _has_forgotten(js: JetStreamContext) -> bool:
    """Nothing but age takes messages from SUBMISSIONS."""
    return (await js.stream_info(topology.SUBMISSIONS.name)).state.first_seq > 1


async def _awaited(
    js: JetStreamContext, record: BatchRecord, floors: Mapping[topology.ServiceName, int]
) -> frozenset[str]:
    """The terms in flight whose message a stage's main consumer has still to answer."""
    turn = asyncio.Semaphore(_AT_ONCE)

    async def is_awaited(id_: str) -> bool:
        if id_ in record.analyzed:
            stream, floor = topology.ANALYSES, floors["stage2"]
            subject = topology.analyzed_subject(record.batch, id_)
        else:
            stream, floor = topology.TERMS, floors["stage1"]
            subject = topology.accepted_subject(record.batch, id_)
        async with turn:
            try:
                message = await js.get_last_msg(stream.name, subject, direct=True)
            except NotFoundError:
                return True  # A replay has taken it off and is about to publish it again.
            return (message.seq or 0) > floor

    ids = list(record.in_flight)
    answers = await asyncio.gather(*map(is_awaited, ids))
    return frozenset(id_ for id_, awaited in zip(ids, answers, strict=True) if awaited)
