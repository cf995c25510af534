"""A dead letter's payload corrected by a person, checked before anything is sent.

What a stage reads has to stay the event that its subject names: the same contract, batch and term.
A refused submission is replaced instead: the corrected one is a submission of its own, and the
refusal stays on record as discarded, since the submission that it answers still stands in its
stream.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Final, Literal, NamedTuple

from nats.js import JetStreamContext
from nats.js.api import Header

from services.cli.letters.letters import Letter, find_letter
from services.cli.letters.replaying import PUBLISH_S, Replayed, discard, replay
from services.ingest.handler import read_submission
from services.kernel import topology
from services.kernel.contracts.analysis import TermAnalyzed
from services.kernel.contracts.card import CardsFinished
from services.kernel.contracts.identity import short_hash, term_id
from services.kernel.contracts.term import TermAccepted
from services.kernel.errors import PermanentError, TermRefused
from services.kernel.stream.outgoing import Publisher

Edited = Literal["replaced", "replaced_before", "changed_meanwhile"] | Replayed

_REPLACED: Final = "replaced by an edited submission: "
_EVENT_MAX_BYTES: Final = topology.MIB // 2
"""A server takes 1 MiB by default, and an event has some kilobytes."""


class PayloadRefused(PermanentError):
    """The edited payload can't take the place of the original one; nothing was sent."""


class _Told(NamedTuple):
    """What an event says of itself."""

    batch: str
    term_id: str
    term: str
    homonym: int | None


def _told(event: TermAccepted | CardsFinished) -> _Told:
    return _Told(event.batch, event.term_id, event.term, event.homonym)


_READ: Final[dict[str, Callable[[bytes], _Told]]] = {
    "stage1": lambda data: _told(TermAccepted.from_bytes(data)),
    "stage2": lambda data: _told(TermAnalyzed.from_bytes(data).accepted),
    "exporter": lambda data: _told(CardsFinished.from_bytes(data)),
}
"""What each service reads."""


async def replay_edited(
    js: JetStreamContext, letter: Letter, payload: bytes, *, at: datetime
) -> Edited:
    """Sends the payload in place of the original one; twice is once.

    Raises PayloadRefused, before anything is sent, and Outage.
    """
    is_submission = letter.record.service == "ingest"
    bound = topology.SUBMISSION_MAX_BYTES if is_submission else _EVENT_MAX_BYTES
    if len(payload) >= bound:
        raise PayloadRefused(
            f"{letter.address}: the edited payload has {len(payload):,} bytes; the stream takes "
            f"less than {bound:,}"
        )
    if is_submission:
        return await _replace_submission(js, letter, payload, at)
    _check_event(letter, payload)
    return await replay(js, letter, payload=payload)


def text_to_edit(payload: bytes) -> str:
    """The payload for an editor: an event in lines, anything else as it came.

    Raises PayloadRefused for what is no text.
    """
    try:
        text = payload.decode()
    except UnicodeDecodeError as error:
        raise PayloadRefused(
            f"the payload is no UTF-8 text (byte {error.start}); give a new one with --payload FILE"
        ) from error
    try:
        event = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if not isinstance(event, dict):
        return text
    return json.dumps(event, ensure_ascii=False, indent=2) + "\n"


def _check_event(letter: Letter, payload: bytes) -> None:
    batch, id_ = letter.record.original_subject.split(".")[-2:]
    try:
        told = _READ[letter.record.service](payload)
    except PermanentError as error:
        raise PayloadRefused(f"{letter.address}: the edited payload is {error}") from error
    if (told.batch, told.term_id) != (batch, id_):
        raise PayloadRefused(
            f"{letter.address}: the edited payload is of batch {told.batch!r} and term_id "
            f"{told.term_id!r}; its subject needs {batch!r} and {id_!r}"
        )
    if term_id(told.term, told.homonym) != id_:
        raise PayloadRefused(
            f"{letter.address}: {told.term!r} is another term than the one with this id; submit "
            "it as a term of its own, and discard this letter"
        )


async def _replace_submission(
    js: JetStreamContext, letter: Letter, payload: bytes, at: datetime
) -> Edited:
    if payload == letter.record.original_payload:
        raise PayloadRefused(f"{letter.address}: nothing was changed; leave out the payload")
    subject = letter.record.original_subject
    try:
        edited = read_submission(subject, payload)
    except TermRefused as refusal:
        raise PayloadRefused(
            f"{letter.address}: the edited submission would be refused again, {refusal} "
            f"({refusal.reason})"
        ) from refusal
    homonym = f"{edited.form.homonym:02}" if edited.form.homonym else ""
    note = f"{_REPLACED}{edited.form.text}{homonym}"
    if _is_replaced(letter, note):
        return "replaced_before"
    # Until the letter is marked the same edit may come twice; the id makes a hasty one no second
    # submission, and a late one ends as the same term.
    headers = {Header.MSG_ID.value: f"edited-{letter.address}-{short_hash(payload)}"}
    trace = letter.record.original_headers.get(topology.TRACEPARENT)
    if trace is not None:
        headers[topology.TRACEPARENT] = trace
    await Publisher(js, timeout_s=PUBLISH_S).publish(subject, payload, headers=headers)
    if await discard(js, letter, note=note, at=at):
        return "replaced"
    standing = await find_letter(js, letter.address)
    return "replaced_before" if _is_replaced(standing, note) else "changed_meanwhile"


def _is_replaced(letter: Letter, note: str) -> bool:
    """Whether this edit was made before. Raises PayloadRefused when it was another one."""
    if not letter.is_discarded or not (letter.record.note or "").startswith(_REPLACED):
        return False
    if letter.record.note != note:
        raise PayloadRefused(
            f"{letter.address} was {letter.record.note}; submit another term with `cardflow submit`"
        )
    return True
