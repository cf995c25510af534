"""Sending dead letters again, and deciding against them.

Replaying has these steps, and a death between any two of them is made good by replaying again:

    1. the letter's own message is taken off its first-write-wins stream: it holds the subject
    2. the original bytes are published on the original subject, awaiting the PubAck; those of an
       urgent term also in its lane
    3. the dead letter is taken away

The letter goes last, so after a death at any point it still stands. After (2) the stream holds a
message with a higher count of replays, or the subject has moved on: the next replay sees that and
does (3) alone. (1) and (3) name the sequence that was looked at, so a message that came meanwhile
(another person's replay, a new dead letter of the same term) is never taken off. Twice is once.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final, Literal

from nats.js import JetStreamContext
from nats.js.api import Header, RawStreamMsg
from nats.js.errors import APIError

from services.cli.letters.letters import Letter
from services.kernel import topology
from services.kernel.errors import Outage
from services.kernel.stream.incoming import replay_count
from services.kernel.stream.lanes import Lanes, priority_header
from services.kernel.stream.outgoing import Publisher
from services.kernel.stream.reading import last_stored

Replayed = Literal["replayed", "replayed_before", "sent_otherwise"]

PUBLISH_S: Final = 10.0
_WRONG_LAST_SEQUENCE: Final = 10071
_FIRST_WRITE_WINS: Final = {
    prefix: stream.name
    for stream in (topology.TERMS, topology.ANALYSES, topology.CARDS)
    for prefix in (stream.subjects[0].removesuffix("*.*"),)
}
"""The stream of a subject, by how the subject begins."""


async def replay(js: JetStreamContext, letter: Letter, *, payload: bytes | None = None) -> Replayed:
    """Sends a letter's message again, as often as it is called: once. Raises Outage.

    `payload` goes out instead of the original one. "sent_otherwise": an earlier replay that was
    cut off had sent another payload, and that one holds.
    """
    body = letter.record.original_payload if payload is None else payload
    subject = letter.record.original_subject
    stream = _first_write_wins_stream(subject)
    publisher = Publisher(js, timeout_s=PUBLISH_S)
    headers = _headers(letter, stream) | priority_header(subject, body)
    sent = None if stream is None else await _make_way(js, stream, subject, letter.replays + 1)
    before = sent is not None
    if not before:
        published = await publisher.publish(subject, body, headers=headers)
        before = published == "duplicate"
        if before and stream is not None:
            sent = await last_stored(js, stream, subject)  # Another person's, come in between.
    if headers.get(topology.PRIORITY) == "urgent":
        urgent = body if sent is None else None
        await Lanes(js, publisher).hurry(subject, urgent, headers)
    await js.purge_stream(
        topology.DEAD_LETTERS.name, subject=letter.subject, seq=letter.sequence + 1
    )
    if not before:
        return "replayed"
    is_same = payload is None or (sent is not None and sent.data == body)
    return "replayed_before" if is_same else "sent_otherwise"


async def _make_way(
    js: JetStreamContext, stream: str, subject: str, replays: int
) -> RawStreamMsg | None:
    """Takes the old message off its subject; the one of this replay, when it stands there."""
    message = await last_stored(js, stream, subject)
    if message is None:
        return None
    if replay_count(message.headers or {}) >= replays:
        return message
    await js.purge_stream(stream, subject=subject, seq=(message.seq or 0) + 1)
    return None


def _headers(letter: Letter, stream: str | None) -> dict[str, str]:
    headers = {
        topology.REPLAYS: str(letter.replays + 1),
        topology.FIRST_AT: letter.record.first_at.isoformat(),
    }
    trace = letter.record.original_headers.get(topology.TRACEPARENT)
    if trace is not None:
        headers[topology.TRACEPARENT] = trace
    if stream is None:
        # SUBMISSIONS takes anything twice; its window of message ids catches a hasty second try.
        headers[Header.MSG_ID.value] = f"replay-{letter.address}-{letter.sequence}"
    return headers


def _first_write_wins_stream(subject: str) -> str | None:
    return next(
        (name for prefix, name in _FIRST_WRITE_WINS.items() if subject.startswith(prefix)), None
    )


async def discard(js: JetStreamContext, letter: Letter, *, note: str, at: datetime) -> bool:
    """Marks a letter as decided against; it stays, so that its term stays accounted for.

    False when it was replayed, discarded or written anew since it was read; then nothing changes.
    """
    decided = letter.record.model_copy(update={"discarded_at": at, "note": note})
    try:
        await js.publish(
            letter.subject,
            decided.to_bytes(),
            timeout=PUBLISH_S,
            headers={Header.EXPECTED_LAST_SUBJECT_SEQUENCE.value: str(letter.sequence)},
        )
    except APIError as error:
        if error.err_code == _WRONG_LAST_SEQUENCE:
            return False
        raise Outage(f"the stream of {letter.subject} refused: {error.description}") from error
    return True
