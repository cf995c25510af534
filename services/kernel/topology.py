"""The table of subjects, streams, consumers and buckets. Everything that names one gets it here.

Nothing here talks to a server; `kernel.provisioning.provision` makes it so.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal, get_args

ServiceName = Literal["ingest", "stage1", "stage2", "exporter"]
SERVICES: Final[tuple[ServiceName, ...]] = ("ingest", "stage1", "stage2", "exporter")
StageName = Literal["stage1", "stage2"]
Lane = Literal["urgent", "bulk"]
"""Terms of these priorities go past the normal ones, or let them by, on a way of their own."""

DEFAULT_BATCH: Final = "default"
"""The batch of a term that was published to plain `terms.submit`."""

UNREADABLE_BATCH: Final = "unreadable"
"""Where dead letters go whose subject names no valid batch."""

_BATCH = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", re.ASCII)

MIB: Final = 1024 * 1024
SUBMISSION_MAX_BYTES: Final = 64 * 1024
"""A term with its hint needs under 4 KiB. The stream refuses anything larger, at the publisher."""


def is_batch_name(name: str) -> bool:
    """True for 1–64 characters of A–Z a–z 0–9 _ - that begin with a letter or digit.

    A batch is a token of a subject and part of a KV key: dots, blanks and wildcards would change
    the subject, and KV keys refuse Korean.
    """
    return _BATCH.fullmatch(name) is not None


@dataclass(frozen=True)
class Stream:
    """One JetStream stream.

    `first_write_wins`: a subject takes one message and refuses the next (error code 10077).
    `latest_only`: a subject keeps its newest message. `until_acked`: a message is gone once it is
    acknowledged. `max_message_bytes` of -1: no own bound.
    """

    name: str
    subjects: tuple[str, ...]
    first_write_wins: bool = False
    latest_only: bool = False
    until_acked: bool = False
    max_message_bytes: int = -1


@dataclass(frozen=True)
class Consumer:
    """One durable pull consumer, and what it reads of its stream."""

    stream: str
    durable: str
    subjects: tuple[str, ...]


@dataclass(frozen=True)
class Bucket:
    """One KV bucket, and how long after its last write a key is gone.

    `batch`: when the streams forget the batch (`max_age_days`). `claim`: `ack_wait_s`.
    """

    name: str
    purpose: str
    lifetime: Literal["forever", "batch", "claim"]


SUBMISSIONS: Final = Stream(
    "SUBMISSIONS", ("terms.submit", "terms.submit.>"), max_message_bytes=SUBMISSION_MAX_BYTES
)
TERMS: Final = Stream("TERMS", ("terms.accepted.*.*",), first_write_wins=True)
ANALYSES: Final = Stream("ANALYSES", ("terms.analyzed.*.*",), first_write_wins=True)
CARDS: Final = Stream("CARDS", ("cards.finished.*.*",), first_write_wins=True)
DEAD_LETTERS: Final = Stream("DEAD_LETTERS", ("dead.*.*.*", "cancelled.*.*.*"), latest_only=True)
"""What became no card: given up on, or cancelled. Both have the same record."""
BATCHES: Final = Stream("BATCHES", ("batches.*.*",), latest_only=True)
LANES: Final = Stream("LANES", ("lanes.*.*.*.*",), first_write_wins=True, until_acked=True)
"""Copies of what stands on TERMS and ANALYSES, for the terms that are not of normal priority."""
STREAMS: Final = (SUBMISSIONS, TERMS, ANALYSES, CARDS, DEAD_LETTERS, BATCHES, LANES)

CONSUMERS: Final[dict[ServiceName, Consumer]] = {
    "ingest": Consumer(SUBMISSIONS.name, "ingest", SUBMISSIONS.subjects),
    "stage1": Consumer(TERMS.name, "stage1", TERMS.subjects),
    "stage2": Consumer(ANALYSES.name, "stage2", ANALYSES.subjects),
    "exporter": Consumer(CARDS.name, "exporter", CARDS.subjects),
}
"""The main consumer of each service, by its name."""

_STAGES_BY_SOURCE: Final[dict[str, StageName]] = {
    "terms.accepted": "stage1",
    "terms.analyzed": "stage2",
}
"""The stages that have lanes, by how the subjects begin that they read."""

COMPLETIONS: Final = Bucket("COMPLETIONS", "fit completions by fingerprint: the cache", "forever")
ATTEMPTS: Final = Bucket("ATTEMPTS", "what was tried for a term, and what it cost", "batch")
CLAIMS: Final = Bucket("CLAIMS", "calls under way, by fingerprint", "claim")
FLEET: Final = Bucket("FLEET", "limits, money and health that all replicas share", "forever")
BUCKETS: Final = (COMPLETIONS, ATTEMPTS, CLAIMS, FLEET)

# Headers of our messages. Publishers need to set none of them.
REPLAYS: Final = "Cardflow-Replays"
"""How often a person sent this dead letter again; attempts are counted from the last time."""
FIRST_AT: Final = "Cardflow-First-At"
"""When a message that was sent again first stood on its stream, ISO 8601."""
PRIORITY: Final = "Cardflow-Priority"
"""On a checkpoint, the lane of a term that is not normal."""
TRACEPARENT: Final = "traceparent"

# Error codes of the server that we branch on; the exception class does not tell them apart.
ALREADY_WRITTEN: Final = 10077
"""A first-write-wins subject holds a message already: for us that is success. The same code is
given for a stream that is full, so the description decides; see `kernel.stream.outgoing`."""


def submit_subject(batch: str) -> str:
    return f"terms.submit.{batch}"


def accepted_subject(batch: str, term_id: str) -> str:
    return f"terms.accepted.{batch}.{term_id}"


def analyzed_subject(batch: str, term_id: str) -> str:
    return f"terms.analyzed.{batch}.{term_id}"


def finished_subject(batch: str, term_id: str) -> str:
    return f"cards.finished.{batch}.{term_id}"


def dead_subject(service: str, batch: str, letter_id: str) -> str:
    return f"dead.{service}.{batch}.{letter_id}"


def cancelled_subject(service: str, batch: str, letter_id: str) -> str:
    return f"cancelled.{service}.{batch}.{letter_id}"


def batch_subject(
    batch: str, event: Literal["opened", "progress", "completed", "cancelled"]
) -> str:
    return f"batches.{batch}.{event}"


def attempts_key(service: str, batch: str, term_id: str) -> str:
    return f"{service}.{batch}.{term_id}"


def lane_subject(source: str, lane: Lane) -> str:
    """Where the copy of a message travels that stands on a subject of TERMS or ANALYSES."""
    prefix, batch, term_id = source.rsplit(".", 2)
    return f"lanes.{_STAGES_BY_SOURCE[prefix]}.{lane}.{batch}.{term_id}"


def source_of(subject: str) -> tuple[str, Lane | None]:
    """The subject that a copy in a lane was made from, and its lane; None for what is no copy."""
    if not subject.startswith("lanes."):
        return subject, None
    _, stage, lane, batch, term_id = subject.split(".")
    prefix = next(prefix for prefix, name in _STAGES_BY_SOURCE.items() if name == stage)
    return f"{prefix}.{batch}.{term_id}", "urgent" if lane == "urgent" else "bulk"


def has_lanes(service: str) -> bool:
    return service in _STAGES_BY_SOURCE.values()


def consumers_of(service: ServiceName) -> tuple[Consumer, ...]:
    """All that a service reads from: its main consumer, then those of its lanes."""
    lanes: tuple[Lane, ...] = get_args(Lane) if has_lanes(service) else ()
    return (
        CONSUMERS[service],
        *(
            Consumer(LANES.name, f"{service}-{lane}", (f"lanes.{service}.{lane}.*.*",))
            for lane in lanes
        ),
    )
