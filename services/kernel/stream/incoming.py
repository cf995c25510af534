"""A delivery as a handler sees it: plain data, no client library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from nats.aio.msg import Msg

from services.kernel import topology
from services.kernel.contracts.term import Priority

_LANES: Final[Mapping[str, topology.Lane]] = {"urgent": "urgent", "bulk": "bulk"}


@dataclass(frozen=True)
class Incoming:
    """One delivery.

    `subject` is that of the stream which the service reads, also for a copy that came by a lane;
    `lane` names that lane. `sequence` is the message's place in the stream that it came from,
    `deliveries` the server's count of hand-outs (from 1; it also rises when a replica stops, so it
    is not our count of attempts).
    """

    subject: str
    data: bytes
    headers: Mapping[str, str]
    sequence: int
    deliveries: int
    published_at: datetime
    lane: topology.Lane | None = None

    @property
    def marked_for(self) -> topology.Lane | None:
        """The lane that its writer meant a message on a checkpoint for."""
        return _LANES.get(self.headers.get(topology.PRIORITY, ""))

    @property
    def replay(self) -> int:
        """How often a person sent this message again."""
        return replay_count(self.headers)

    @property
    def first_at(self) -> datetime:
        """When the message first stood on its stream, over all replays.

        What is no moment with an offset says nothing: anybody may publish a header.
        """
        try:
            named = datetime.fromisoformat(self.headers.get(topology.FIRST_AT, ""))
        except ValueError:
            return self.published_at
        return self.published_at if named.tzinfo is None else min(named, self.published_at)

    @property
    def redelivered(self) -> bool:
        return self.deliveries > 1


def replay_count(headers: Mapping[str, str]) -> int:
    """What the header says; 0 for none, and for what is no number."""
    value = headers.get(topology.REPLAYS, "0")
    return int(value) if value.isascii() and value.isdigit() else 0


@dataclass(frozen=True)
class Identity:
    """What a delivery is about, for its attempts, its dead letter and its log lines."""

    batch: str
    id: str


@dataclass(frozen=True)
class Outgoing:
    """What a handler wants published on the next stream, and how urgent it is there."""

    subject: str
    body: bytes
    priority: Priority = "normal"


def read_delivery(msg: Msg) -> Incoming:
    subject, lane = topology.source_of(msg.subject)
    return Incoming(
        subject=subject,
        data=msg.data,
        headers=msg.headers or {},
        sequence=msg.metadata.sequence.stream,
        deliveries=msg.metadata.num_delivered,
        published_at=msg.metadata.timestamp,
        lane=lane,
    )


def identity_of_subject(incoming: Incoming) -> Identity:
    """Our own subjects end in `<batch>.<id>`."""
    batch, id_ = incoming.subject.split(".")[-2:]
    return Identity(batch, id_)
