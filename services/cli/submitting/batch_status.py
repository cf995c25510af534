"""Where a batch stands: derived from the streams and the exporter's newest event."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final, Literal

from nats.js import JetStreamContext
from nats.js.api import RawStreamMsg

from services.kernel import topology
from services.kernel.contracts.batch import (
    BatchCancelled,
    BatchCompleted,
    BatchOpened,
    BatchProgress,
)
from services.kernel.stream.reading import (
    BatchCounts,
    count_batch,
    last_stored,
    subjects_of,
    submission_subjects,
)

State = Literal["completed", "running", "open", "cancelling", "cancelled"]

FIELDS: Final = (
    "batch",
    "submitted",
    "accepted",
    "analyzed",
    "finished",
    "dead",
    "cancelled",
    "in_flight",
    "cached",
    "calls",
    "cost_usd",
    "eta_s",
    "state",
)


@dataclass(frozen=True)
class BatchStatus:
    """A batch at one moment.

    `submitted` counts messages, all other counts are of different terms. `cached`, `calls` and
    `cost_usd` are as of the exporter's newest progress event. `eta_s`: seconds until the last
    term ends at the rate since the batch was opened; 0 when completed, None when unknown.
    `state`: "completed" (all that was declared has arrived, ended and is stored), "running",
    "open" (nothing is in flight, but its size was never declared), "cancelling" (nothing more is
    begun, and what was begun has still to end), or "cancelled" (all of it has ended).

    `total` is the number of terms to come to, as far as it is known. `is_over`: every term that
    arrived has ended, and the cards are stored. `is_final`: the cost covers all of them.
    """

    batch: str
    submitted: int
    accepted: int
    analyzed: int
    finished: int
    dead: int
    in_flight: int
    cached: int
    calls: int
    cost_usd: Decimal
    eta_s: float | None
    state: State
    total: int
    is_over: bool
    is_final: bool
    cancelled: int = 0

    @property
    def ended(self) -> int:
        return self.finished + self.dead + self.cancelled

    @property
    def is_cancelled(self) -> bool:
        """Somebody cancelled it: what has not ended by itself will not be finished."""
        return self.state in ("cancelling", "cancelled")

    def as_json(self) -> dict[str, Any]:
        """What `cardflow status --json` prints."""
        values = {name: getattr(self, name) for name in FIELDS}
        return {**values, "cost_usd": float(self.cost_usd)}


@dataclass(frozen=True)
class BatchEvents:
    """The newest events of a batch. `ended_before`: terms that had ended when it was opened."""

    opened: BatchOpened | None = None
    progress: BatchProgress | None = None
    ended_before: int = 0
    cancelled: BatchCancelled | None = None


async def batch_status(js: JetStreamContext, batch: str) -> BatchStatus:
    """Derives the status; zeros and "open" for a batch that nobody has heard of."""
    counts = await count_batch(js, batch)
    events = await _events(js, batch)
    return status_of(batch, counts, events, datetime.now(UTC))


def status_of(batch: str, counts: BatchCounts, events: BatchEvents, now: datetime) -> BatchStatus:
    """The status for these figures. Pure."""
    progress = events.progress
    ended = counts.ended
    stored = counts.finished == 0 or (progress is not None and progress.finished >= counts.finished)
    is_over = counts.settled and stored
    state = _state(counts, events, is_over=is_over)
    total = _total(counts, events.opened)
    return BatchStatus(
        batch=batch,
        submitted=counts.submitted,
        accepted=counts.accepted,
        analyzed=counts.analyzed,
        finished=counts.finished,
        dead=counts.dead,
        in_flight=counts.in_flight,
        cached=progress.cached if progress else 0,
        calls=progress.calls if progress else 0,
        cost_usd=progress.cost_usd if progress else Decimal(0),
        eta_s=0.0
        if state in ("completed", "cancelled")
        else _eta_s(total - ended, ended, events, now),
        state=state,
        total=total,
        is_over=is_over,
        is_final=is_over and (ended == 0 or _covers(progress, counts)),
        cancelled=counts.cancelled,
    )


def _covers(progress: BatchProgress | None, counts: BatchCounts) -> bool:
    """Whether the event was made of all that has ended, each term as it has ended."""
    if progress is None or progress.current < counts.ended:
        return False
    return (progress.dead, progress.cancelled) == (counts.dead, counts.cancelled)


def _state(counts: BatchCounts, events: BatchEvents, *, is_over: bool) -> State:
    opened = events.opened
    if events.cancelled is not None:
        return "cancelled" if is_over else "cancelling"
    if opened is None:
        return "open" if counts.settled else "running"
    return "completed" if is_over and counts.submitted >= opened.expected else "running"


def _total(counts: BatchCounts, opened: BatchOpened | None) -> int:
    """Until all has arrived, what was declared stands in: among it may be duplicates."""
    missing = max(0, opened.expected - counts.submitted) if opened else 0
    return max(counts.total + missing, counts.ended)


def _eta_s(remaining: int, ended: int, events: BatchEvents, now: datetime) -> float | None:
    if events.opened is None or ended <= events.ended_before:
        return None
    elapsed_s = max(0.0, (now - events.opened.opened_at).total_seconds())
    return round(remaining * elapsed_s / (ended - events.ended_before), 1)


async def _events(js: JetStreamContext, batch: str) -> BatchEvents:
    opened = await newest_event(js, topology.batch_subject(batch, "opened"))
    progress = await newest_event(js, topology.batch_subject(batch, "progress"))
    completed = await newest_event(js, topology.batch_subject(batch, "completed"))
    ended_before = 0
    if opened and completed and (completed.seq or 0) < (opened.seq or 0):
        ended_before = BatchCompleted.model_validate_json(completed.data or b"").current
    return BatchEvents(
        opened=BatchOpened.model_validate_json(opened.data or b"") if opened else None,
        progress=BatchProgress.model_validate_json(progress.data or b"") if progress else None,
        ended_before=ended_before,
        cancelled=await cancellation_of(js, batch),
    )


async def cancellation_of(js: JetStreamContext, batch: str) -> BatchCancelled | None:
    """When and why the batch was cancelled; None when it was not, or was taken up again."""
    message = await newest_event(js, topology.batch_subject(batch, "cancelled"))
    if message is None:
        return None
    event = BatchCancelled.model_validate_json(message.data or b"")
    return event if event.undone_at is None else None


async def newest_event(js: JetStreamContext, subject: str) -> RawStreamMsg | None:
    """The newest message of a subject on BATCHES."""
    return await last_stored(js, topology.BATCHES.name, subject)


async def known_batches(js: JetStreamContext) -> list[str]:
    """All batches that were opened or that terms were published to, by name."""
    events = await subjects_of(js, topology.BATCHES.name, "batches.*.*")
    submissions = await subjects_of(js, topology.SUBMISSIONS.name, "terms.submit.*")
    plain = await subjects_of(js, topology.SUBMISSIONS.name, "terms.submit")
    names = {subject.split(".")[1] for subject in events}
    names |= {subject.removeprefix("terms.submit.") for subject in submissions}
    names |= {topology.DEFAULT_BATCH} if plain else set()
    return sorted(filter(topology.is_batch_name, names))


async def is_known(js: JetStreamContext, batch: str) -> bool:
    """True when the batch was opened or has submissions; a wildcard names none."""
    if not topology.is_batch_name(batch):
        return False
    if await subjects_of(js, topology.BATCHES.name, f"batches.{batch}.*"):
        return True
    for subject in submission_subjects(batch):
        if await subjects_of(js, topology.SUBMISSIONS.name, subject):
            return True
    return False


def unknown_batch(batch: str, known: list[str]) -> str:
    """The message for a batch that is not there; names the last twenty that are."""
    shown = ", ".join(known[-20:]) or "none yet; `cardflow submit` makes one"
    more = f" (and {len(known) - 20} others)" if len(known) > 20 else ""
    return f"there is no batch {batch!r}; there are: {shown}{more}"
