"""Publishing a submission: its batch is opened with its size, then every row goes out.

A row counts as published when the server has acknowledged it. What the batch was opened for and
did not get is taken back from its size, so that its end can still be seen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import nats.errors
from nats.js import JetStreamContext
from nats.js.api import Header
from nats.js.errors import APIError

from services.cli.submitting.payloads import Payload
from services.kernel import topology
from services.kernel.contracts.base import Batch
from services.kernel.contracts.batch import BatchOpened
from services.kernel.errors import Outage, PermanentError
from services.kernel.nats_faults import NATS_FAULTS
from services.kernel.stream.reading import last_message, subjects_of, submission_subjects
from services.kernel.stream.trace import Trace

AT_ONCE: Final = 200
"""Publishes waiting for their PubAck; more gain nothing on one connection."""
_PUB_ACK_S: Final = 10.0
_ANSWER_S: Final = 30.0
"""An election takes 4-8 s and a restart of the server some more; longer silence is an outage."""
_AGAIN_S: Final = 0.5
_ARRIVAL_S: Final = 2.0
"""A submission under way publishes thousands of rows in this time."""
_UNAVAILABLE: Final = 503


class PublishRefused(PermanentError):
    """The server will not take this message; `is_full`: nor any other now."""

    def __init__(self, message: str, *, is_full: bool) -> None:
        super().__init__(message, reason="refused_by_server")
        self.is_full = is_full


@dataclass
class Publication:
    """What became of a submission. `expected` is the size that the batch was opened with.

    `broken_off` says why publishing ended before all rows were tried.
    """

    expected: int
    published: int = 0
    refused: list[tuple[Payload, str]] = field(default_factory=list)
    broken_off: str | None = None


async def publish_submission(
    js: JetStreamContext,
    batch: str,
    payloads: Sequence[Payload],
    *,
    deck: str | None,
    now: datetime,
    on_published: Callable[[], None] = lambda: None,
    arrival_s: float = _ARRIVAL_S,
    before: int | None = None,
) -> Publication:
    """Opens the batch, or adds to one, and publishes every payload. Raises Outage before the first.

    `before`: how many submissions the batch has, where the caller knows that no others come.
    Rows without a position are numbered on from what the batch was to have before. A refusal
    by the server costs its row; a full stream or a server that stays away ends the publishing.
    """
    # Asked for first: silence of a stream that does not exist looks like an election.
    await js.stream_info(topology.SUBMISSIONS.name)
    if before is None:
        before = await _declared(js, batch, arrival_s)
    publication = Publication(expected=before + len(payloads))
    await _open(js, batch, publication.expected, deck, now)
    try:
        await _publish_all(js, batch, payloads, before, publication, on_published)
    finally:
        if missing := len(payloads) - publication.published:
            await _take_back(js, batch, missing)
    return publication


async def _declared(js: JetStreamContext, batch: str, arrival_s: float) -> int:
    """How many submissions the batch was to have before ours.

    A publisher that was killed never sends the rest of what it declared. So where only a part
    has arrived and nothing more comes in `arrival_s`, what has arrived counts.
    """
    opened = await _opened(js, batch)
    arrived = await _arrived(js, batch)
    while opened and 0 < arrived < opened.expected:
        await asyncio.sleep(arrival_s)
        later = await _arrived(js, batch)
        if later == arrived:
            return arrived
        arrived = later
    return max(arrived, opened.expected if opened else 0)


async def _arrived(js: JetStreamContext, batch: str) -> int:
    counts = [
        await subjects_of(js, topology.SUBMISSIONS.name, subject)
        for subject in submission_subjects(batch)
    ]
    return sum(sum(count.values()) for count in counts)


async def _opened(js: JetStreamContext, batch: str) -> BatchOpened | None:
    subject = topology.batch_subject(batch, "opened")
    data = await last_message(js, topology.BATCHES.name, subject)
    return None if data is None else BatchOpened.model_validate_json(data)


async def _open(
    js: JetStreamContext, batch: str, expected: int, deck: str | None, now: datetime
) -> None:
    event = BatchOpened(batch=Batch(batch), expected=expected, deck=deck, opened_at=now)
    try:
        await _publish(js, topology.batch_subject(batch, "opened"), event.to_bytes())
    except PublishRefused as refusal:
        raise Outage(f"the batch can't be opened: {refusal}") from refusal


async def _take_back(js: JetStreamContext, batch: str, missing: int) -> None:
    """Without a server the size stays; the next submission to the batch sets it right."""
    try:
        opened = await _opened(js, batch)
        if opened is not None:
            expected = max(0, opened.expected - missing)
            event = opened.model_copy(update={"expected": expected})
            subject = topology.batch_subject(batch, "opened")
            await js.publish(subject, event.to_bytes(), timeout=_PUB_ACK_S)
    except NATS_FAULTS:
        return


async def _publish_all(
    js: JetStreamContext,
    batch: str,
    payloads: Sequence[Payload],
    before: int,
    publication: Publication,
    on_published: Callable[[], None],
) -> None:
    remaining = enumerate(payloads, start=before + 1)
    async with asyncio.TaskGroup() as tasks:
        for _ in range(min(AT_ONCE, len(payloads))):
            tasks.create_task(_publish_some(js, batch, remaining, publication, on_published))


async def _publish_some(
    js: JetStreamContext,
    batch: str,
    remaining: Iterator[tuple[int, Payload]],
    publication: Publication,
    on_published: Callable[[], None],
) -> None:
    """One of the workers that share what remains, until nothing does or one of them gives up."""
    subject = topology.submit_subject(batch)
    while publication.broken_off is None:
        ordinal, payload = next(remaining, (0, None))
        if payload is None:
            return
        trace = Trace.new()
        # The id lets the server know a second try from a second row.
        headers = {topology.TRACEPARENT: trace.header(), Header.MSG_ID.value: trace.trace_id}
        try:
            await _publish(js, subject, payload.at(ordinal), headers)
        except PublishRefused as refusal:
            publication.refused.append((payload, str(refusal)))
            if refusal.is_full:
                publication.broken_off = str(refusal)
        except Outage as outage:
            publication.broken_off = str(outage)
        else:
            publication.published += 1
            on_published()


async def _publish(
    js: JetStreamContext, subject: str, body: bytes, headers: Mapping[str, str] | None = None
) -> None:
    """Done when acknowledged. Raises PublishRefused, or Outage after `_ANSWER_S` of trying."""
    deadline = asyncio.get_running_loop().time() + _ANSWER_S
    while True:
        try:
            await js.publish(subject, body, timeout=_PUB_ACK_S, headers=dict(headers or {}) or None)
            return
        except NATS_FAULTS as error:
            _raise_if_refused(error)
            is_closed = isinstance(error, nats.errors.ConnectionClosedError)
            if is_closed or asyncio.get_running_loop().time() > deadline:
                raise Outage(f"the server stopped answering ({error!r})") from error
        await asyncio.sleep(_AGAIN_S)


def _raise_if_refused(error: Exception) -> None:
    """A verdict on the message, as opposed to a server that can't serve at the moment."""
    if isinstance(error, nats.errors.MaxPayloadError):
        raise PublishRefused("larger than the server's max_payload", is_full=False) from error
    if not isinstance(error, APIError):
        return
    is_full = error.err_code == topology.ALREADY_WRITTEN
    if is_full or error.code != _UNAVAILABLE:
        raise PublishRefused(f"refused by the server: {error.description}", is_full=is_full) from (
            error
        )
