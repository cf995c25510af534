"""Lanes: how urgent terms overtake a stage's backlog, and bulk terms let the others by.

A checkpoint holds every term in the order of arrival. A term that is not normal also travels as a
copy in the lane of the stage that reads the checkpoint, with a consumer and workers of its own:

    urgent   who writes the checkpoint puts the copy into the lane at once
    both     the stage's main consumer, when it comes to the term, leaves it to its lane: it sees to
             it that the copy is there, and acknowledges

So the checkpoint alone decides that no term is lost; the writer's copy is what makes it quick.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

from nats.js import JetStreamContext

from services.kernel import topology
from services.kernel.contracts.analysis import TermAnalyzed
from services.kernel.contracts.base import Contract
from services.kernel.contracts.term import Priority, TermAccepted
from services.kernel.errors import Outage, PermanentError
from services.kernel.stream.checkpoint import standing
from services.kernel.stream.incoming import Identity, Incoming, replay_count
from services.kernel.stream.outgoing import Publisher

_WRITTEN_BY: Final[Mapping[str, Callable[[str, str], str]]] = {
    "ingest": topology.accepted_subject,
    "stage1": topology.analyzed_subject,
}
"""What a service writes that a stage with lanes reads."""
_KEPT: Final = (topology.TRACEPARENT, topology.REPLAYS, topology.FIRST_AT)


class Lanes:
    """The lanes that one service reads from, and those that it feeds. All raise Outage.

    `service`: none for a command, which has no consumer.
    """

    def __init__(self, js: JetStreamContext, publisher: Publisher, service: str = "") -> None:
        self._js = js
        self._publisher = publisher
        self._has_lanes = topology.has_lanes(service)
        self._written = _WRITTEN_BY.get(service)

    def lane_of(self, incoming: Incoming) -> topology.Lane | None:
        """The lane that a message of the main consumer is to be left to."""
        return incoming.marked_for if self._has_lanes and incoming.lane is None else None

    async def leave(self, incoming: Incoming, lane: topology.Lane) -> None:
        """Sees to it that the copy of a message is in its lane."""
        subject = topology.lane_subject(incoming.subject, lane)
        first_at = {topology.FIRST_AT: incoming.first_at.isoformat()}
        headers = {**incoming.headers, **first_at}
        if await self._publisher.publish(subject, incoming.data, headers=headers) == "published":
            return
        copy = await standing(self._js, topology.LANES.name, subject)
        if copy is None or replay_count(copy.headers or {}) < incoming.replay:
            raise Outage("the copy of an earlier replay is about to leave the lane")

    async def hurry(self, subject: str, body: bytes | None, headers: Mapping[str, str]) -> None:
        """Puts the copy of what was written on a checkpoint into the urgent lane.

        `body` of None: of what stands there. It becomes urgent if it was not: the same term may
        come again as such.
        """
        if body is None:
            stored = await standing(self._js, _stream_of(subject), subject)
            if stored is None:
                return  # Taken off, and about to be published again.
            body = _as_urgent(subject, stored.data or b"")
            headers = {k: v for k, v in (stored.headers or {}).items() if k in _KEPT}
        await self._publisher.publish(
            topology.lane_subject(subject, "urgent"), body, headers=headers
        )

    async def hurry_on(self, identity: Identity) -> None:
        """The same for what this service has written of a term, if anything."""
        if self._written is not None:
            await self.hurry(self._written(identity.batch, identity.id), None, {})


def _stream_of(subject: str) -> str:
    is_accepted = subject.startswith("terms.accepted.")
    return topology.TERMS.name if is_accepted else topology.ANALYSES.name


def priority_header(subject: str, data: bytes) -> dict[str, str]:
    """What stands beside an event on its checkpoint: nothing for a normal term."""
    priority = _priority_in(subject, data)
    return {} if priority == "normal" else {topology.PRIORITY: priority}


def _priority_in(subject: str, data: bytes) -> Priority:
    """What an event on TERMS or ANALYSES says; normal for all others."""
    with suppress(PermanentError):
        event = _read(subject, data)
        if isinstance(event, TermAnalyzed):
            return event.accepted.priority
        if isinstance(event, TermAccepted):
            return event.priority
    return "normal"


def _as_urgent(subject: str, data: bytes) -> bytes:
    """An event as if it had been urgent from the start: a term can be submitted again as such."""
    if _priority_in(subject, data) == "urgent":
        return data
    with suppress(PermanentError):
        event = _read(subject, data)
        if isinstance(event, TermAnalyzed):
            accepted = event.accepted.model_copy(update={"priority": "urgent"})
            return event.model_copy(update={"accepted": accepted}).to_bytes()
        if isinstance(event, TermAccepted):
            return event.model_copy(update={"priority": "urgent"}).to_bytes()
    return data


def _read(subject: str, data: bytes) -> Contract | None:
    """Raises PermanentError for what is no event of the subject."""
    if subject.startswith("terms.accepted."):
        return TermAccepted.from_bytes(data)
    if subject.startswith("terms.analyzed."):
        return TermAnalyzed.from_bytes(data)
    return None
