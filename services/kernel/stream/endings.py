"""Whether a term has ended in a service: its result stands, or the record that it became none."""

from __future__ import annotations

from nats.js import JetStreamContext

from services.kernel import topology
from services.kernel.contracts.dead_letter import DeadLetter
from services.kernel.stream.checkpoint import Checkpoint, standing
from services.kernel.stream.incoming import Identity, Incoming, replay_count


class Endings:
    """Where the terms of one service end, besides in its store."""

    def __init__(
        self, js: JetStreamContext, service: topology.ServiceName, next_checkpoint: Checkpoint
    ) -> None:
        self._js = js
        self._service = service
        self._next = next_checkpoint

    async def has_ended(self, identity: Identity, replay: int) -> bool:
        """True when nothing is left to do for this replay of a term. Raises Outage."""
        return await self._next.holds(identity.batch, identity.id) or await self._is_given_up(
            identity, replay
        )

    async def is_superseded(self, incoming: Incoming) -> bool:
        """True when a person has sent the message again since this copy of it was handed out."""
        stream = topology.CONSUMERS[self._service].stream
        if not any(s.name == stream and s.first_write_wins for s in topology.STREAMS):
            return False  # A subject of SUBMISSIONS holds many messages.
        now = await standing(self._js, stream, incoming.subject)
        if now is None:
            return True  # Taken off, and about to be published again.
        if incoming.lane is not None:  # A copy, whose place is one in the lane.
            return replay_count(now.headers or {}) > incoming.replay
        return now.seq != incoming.sequence

    async def _is_given_up(self, identity: Identity, replay: int) -> bool:
        """A record stands, of its death or of its cancellation; a later replay goes on."""
        place = (self._service, identity.batch, identity.id)
        for subject in (topology.dead_subject(*place), topology.cancelled_subject(*place)):
            stored = await standing(self._js, topology.DEAD_LETTERS.name, subject)
            if stored is None:
                continue
            record = DeadLetter.from_bytes(stored.data or b"")
            if replay_count(record.original_headers) >= replay:
                return True
        return False
