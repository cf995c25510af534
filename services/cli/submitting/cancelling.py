"""Cancelling a batch, and taking it up again: the event that stages obey, and what they left.

A stage that meets a term of a cancelled batch puts its message on record and asks nobody. Undoing
says so in the same event, and replays those records; each step can be repeated.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from nats.js import JetStreamContext
from nats.js.api import Header
from nats.js.errors import APIError

from services.cli.letters.acting import FAILURE, act_on_each
from services.cli.letters.letters import Wanted, read_letters
from services.cli.letters.replaying import replay
from services.cli.submitting.batch_status import newest_event
from services.kernel import topology
from services.kernel.contracts.base import Batch
from services.kernel.contracts.batch import BatchCancelled
from services.kernel.errors import Outage

_PUBLISH_S: Final = 10.0
_WRONG_LAST_SEQUENCE: Final = 10071
_HEARD_S: Final = 0.5
"""By then every stage has heard; one that missed it reads the stream again within seconds."""
_HEARD_AT_LAST_S: Final = 15.0


async def cancel_batch(
    js: JetStreamContext, batch: str, *, note: str | None, at: datetime
) -> BatchCancelled:
    """The event by which the batch is cancelled: ours, or an earlier one, which then stays.

    Raises Outage when the stream does not take it.
    """
    while True:
        standing, sequence = await _standing(js, batch)
        if standing is not None and standing.undone_at is None:
            return standing
        event = BatchCancelled(batch=Batch(batch), note=note, cancelled_at=at)
        if await _publish(js, event, after=sequence):
            return event


@dataclass(frozen=True)
class TakenUp:
    """What undoing came to. `was_cancelled`: there was something to undo."""

    was_cancelled: bool
    replayed: int = 0
    failed: int = 0


async def take_up_again(
    js: JetStreamContext,
    batch: str,
    *,
    at: datetime,
    per_second: float,
    heard_s: float = _HEARD_S,
    heard_at_last_s: float = _HEARD_AT_LAST_S,
) -> TakenUp:
    """Undoes a cancellation and replays what was cancelled, paced. Twice is once. Raises Outage.

    A stage that has not heard of it cancels a replayed term once more, so the records are read
    until there are none, for `heard_at_last_s` seconds after the first round at most; what is left
    counts as failed.
    """
    clock = asyncio.get_running_loop().time
    was_cancelled = await _undo(js, batch, at)
    if was_cancelled:
        await asyncio.sleep(heard_s)
    wanted = Wanted(batch=batch, cancelled=True)
    subjects: set[str] = set()
    deadline: float | None = None
    while letters := (await read_letters(js, wanted)).readable:
        was_cancelled = True
        if deadline is not None and clock() > deadline:
            break
        outcomes = await act_on_each(js, letters, replay, per_second=per_second)
        subjects |= {letter.subject for letter in letters}
        if any(outcome.startswith(FAILURE) for outcome in outcomes):
            letters = (await read_letters(js, wanted)).readable
            break
        deadline = deadline or clock() + heard_at_last_s
        await asyncio.sleep(heard_s)
    left = {letter.subject for letter in letters}
    return TakenUp(was_cancelled, replayed=len(subjects - left), failed=len(left))


async def _undo(js: JetStreamContext, batch: str, at: datetime) -> bool:
    """False when the batch was not cancelled."""
    while True:
        standing, sequence = await _standing(js, batch)
        if standing is None or standing.undone_at is not None:
            return False
        if await _publish(js, standing.model_copy(update={"undone_at": at}), after=sequence):
            return True


async def _standing(js: JetStreamContext, batch: str) -> tuple[BatchCancelled | None, int]:
    """The newest event, undone or not, and its place in the stream."""
    message = await newest_event(js, topology.batch_subject(batch, "cancelled"))
    if message is None:
        return None, 0
    return BatchCancelled.model_validate_json(message.data or b""), message.seq or 0


async def _publish(js: JetStreamContext, event: BatchCancelled, *, after: int) -> bool:
    """False when somebody else has published since `after`."""
    try:
        await js.publish(
            topology.batch_subject(event.batch, "cancelled"),
            event.to_bytes(),
            timeout=_PUBLISH_S,
            headers={Header.EXPECTED_LAST_SUBJECT_SEQUENCE.value: str(after)},
        )
    except APIError as error:
        if error.err_code == _WRONG_LAST_SEQUENCE:
            return False
        raise Outage(f"the stream refused the event: {error.description}") from error
    return True
