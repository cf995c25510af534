"""Dead letters put on a real server as a service would leave them."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from services.cli.letters.letters import Letter, find_letter
from services.kernel import topology
from services.kernel.contracts.attempt import Attempt, AttemptHistory
from services.kernel.contracts.dead_letter import DeadLetter
from services.kernel.stream.dead_letters import subject_of

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
STREAMS = {"ingest": "SUBMISSIONS", "stage1": "TERMS", "stage2": "ANALYSES", "exporter": "CARDS"}


def a_letter(id_: str = "abc", service: str = "stage1", **values: Any) -> DeadLetter:
    batch = values.get("batch", "b1")
    subjects = {
        "ingest": topology.submit_subject(batch),
        "stage1": topology.accepted_subject(batch, id_),
        "stage2": topology.analyzed_subject(batch, id_),
        "exporter": topology.finished_subject(batch, id_),
    }
    attempts = (
        Attempt(outcome="throttled", fingerprint="f", started_at=NOON),
        Attempt(
            outcome="billed",
            fingerprint="f",
            cost_usd=Decimal("0.0002"),
            started_at=NOON,
            finished_at=NOON,
            error="schema: ipa",
        ),
    )
    defaults: dict[str, Any] = {
        "letter_id": id_,
        "service": service,
        "batch": batch,
        "term": "책",
        "reason": "schema",
        "error": "ReplyRejected",
        "message": "schema: ipa is missing",
        "causes": ("ValueError: no ipa",),
        "history": AttemptHistory(attempts=attempts),
        "original_subject": subjects[service],
        "original_headers": {topology.TRACEPARENT: TRACE},
        "original_payload": f"payload of {id_}".encode(),
        "first_at": NOON,
        "last_at": NOON,
    }
    return DeadLetter.model_validate({**defaults, **values})


async def give_up(js: JetStreamContext, record: DeadLetter, *, original: bool = True) -> Letter:
    """The state that a service leaves: the message on its stream, and its dead letter."""
    if original:
        await js.publish(
            record.original_subject, record.original_payload, headers=record.original_headers
        )
    await js.publish(subject_of(record), record.to_bytes())
    return await find_letter(js, f"{record.service}/{record.batch}/{record.letter_id}")


async def stands(js: JetStreamContext, letter: Letter) -> bool:
    try:
        await js.get_last_msg(topology.DEAD_LETTERS.name, letter.subject)
    except NotFoundError:
        return False
    return True


async def replays_of(js: JetStreamContext, letter: Letter) -> int:
    """The count that the newest message on the original subject carries."""
    stream = STREAMS[letter.record.service]
    message = await js.get_last_msg(stream, letter.record.original_subject)
    assert message.data == letter.record.original_payload
    return int((message.headers or {}).get(topology.REPLAYS, "0"))


async def count(js: JetStreamContext, stream: str) -> int:
    return (await js.stream_info(stream)).state.messages


async def put_on_record(js: JetStreamContext, record: DeadLetter) -> str:
    """What a stage leaves of a term of a cancelled batch; the subject."""
    subject = topology.cancelled_subject(record.service, record.batch, record.letter_id)
    await js.publish(subject, record.to_bytes())
    return subject
