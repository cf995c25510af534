"""The accounting of terms and of what they cost: sets in, problems out. Pure.

every submission is accepted, refused, or still with ingest
accepted = finished + dead + cancelled + in flight, by id, and no id in two of them; what is in
flight is still to be delivered
for every fingerprint at most one billed success, and one more after each purge of the cache
what a card says that it cost is what was recorded when it was paid
what the provider saw and charged is what was recorded, give or take the uncertain calls
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from itertools import pairwise
from typing import Final, Literal, NamedTuple

from services.kernel.contracts.attempt import Attempt, AttemptHistory
from services.kernel.contracts.cache import CachePurge

Identity = Literal["submissions", "terms", "outputs", "fingerprints", "money", "provider"]


@dataclass(frozen=True)
class Problem:
    """One identity that does not hold, and for which ids."""

    identity: Identity
    message: str
    ids: tuple[str, ...] = ()


class Submission(NamedTuple):
    """A submission's place in its stream, and what may become of it: a term or a refusal."""

    sequence: int
    term_id: str | None
    refusal_id: str


class Paid(NamedTuple):
    """What a card says of one stage."""

    calls: int
    cost_usd: Decimal
    cached: bool


class AttemptsKey(NamedTuple):
    """Which attempts: those of one service for one term of one batch."""

    service: str
    batch: str
    id: str

    def __str__(self) -> str:
        return "/".join(self)


Attempts = Mapping[AttemptsKey, AttemptHistory]
STAGES: Final = ("stage1", "stage2")
"""The services that ask a model."""

ROUNDING_USD: Final = Decimal("1e-12")
"""Money crosses the wire as a JSON number, which may round a long sum in its last digit."""


@dataclass(frozen=True)
class BatchRecord:
    """All that the streams hold of one batch.

    `ingest_floor`: ingest has answered every submission up to this place. `awaited` are the
    accepted terms that a consumer has still to answer. `dead` and `cancelled` have the ids by
    stage; `not_stored` are finished cards that the exporter gave up on. `misplaced` are cards that
    stand under the id of another term. `forgotten`: SUBMISSIONS has dropped its oldest messages.
    """

    batch: str
    submissions: tuple[Submission, ...] = ()
    ingest_floor: int = 0
    accepted: frozenset[str] = frozenset()
    analyzed: frozenset[str] = frozenset()
    finished: Mapping[str, tuple[Paid, Paid]] = field(default_factory=dict)
    refused: frozenset[str] = frozenset()
    dead: Mapping[str, frozenset[str]] = field(default_factory=dict)
    cancelled: Mapping[str, frozenset[str]] = field(default_factory=dict)
    not_stored: frozenset[str] = frozenset()
    misplaced: frozenset[str] = frozenset()
    awaited: frozenset[str] = frozenset()
    forgotten: bool = False

    @property
    def all_dead(self) -> frozenset[str]:
        return frozenset().union(*self.dead.values())

    @property
    def all_cancelled(self) -> frozenset[str]:
        return frozenset().union(*self.cancelled.values())

    @property
    def in_flight(self) -> frozenset[str]:
        return self.accepted - self.finished.keys() - self.all_dead - self.all_cancelled

    @property
    def ingested(self) -> bool:
        """Ingest has answered every submission."""
        return all(s.sequence <= self.ingest_floor for s in self.submissions)

    @property
    def complete(self) -> bool:
        return self.ingested and not self.in_flight


def batch_problems(record: BatchRecord, attempts: Attempts) -> list[Problem]:
    """Every identity of one batch that does not hold."""
    found = [
        *_submission_problems(record),
        *_term_problems(record),
        *_money_problems(record, attempts),
    ]
    return [problem for problem in found if problem.ids]


def _submission_problems(record: BatchRecord) -> Iterator[Problem]:
    last: dict[tuple[str | None, str], int] = {}
    for sequence, term_id, refusal_id in record.submissions:
        key = (term_id, refusal_id)
        last[key] = max(sequence, last.get(key, 0))
    lost = [
        term_id or refusal_id
        for (term_id, refusal_id), sequence in last.items()
        if sequence <= record.ingest_floor
        and term_id not in record.accepted
        and refusal_id not in record.refused
    ]
    yield _problem("submissions", "submitted, but neither accepted nor refused: lost", lost)
    if record.forgotten:
        return
    terms = {term_id for term_id, _ in last}
    refusals = {refusal_id for _, refusal_id in last}
    yield _problem("submissions", "accepted, but never submitted", record.accepted - terms)
    yield _problem("submissions", "refused, but never submitted", record.refused - refusals)


def _term_problems(record: BatchRecord) -> Iterator[Problem]:
    finished = record.finished.keys()
    dead1, dead2 = (record.dead.get(stage, frozenset()) for stage in STAGES)
    cancelled1, cancelled2 = (record.cancelled.get(stage, frozenset()) for stage in STAGES)
    yield _problem(
        "terms",
        "accepted and answered by every consumer, but neither finished, dead nor cancelled: lost",
        record.in_flight - record.awaited,
    )
    yield _problem(
        "terms",
        "finished and dead at once; a replay that was cut off is ended by the same replay",
        finished & record.all_dead,
    )
    resumed = "at once; `cardflow cancel BATCH --undo` ends what was cut off"
    yield _problem("terms", f"finished and cancelled {resumed}", finished & record.all_cancelled)
    yield _problem(
        "terms",
        "dead and cancelled at once, or cancelled in both stages",
        (record.all_dead & record.all_cancelled) | (cancelled1 & cancelled2),
    )
    yield _problem("terms", "analysed and dead in stage 1 at once", dead1 & record.analyzed)
    yield _problem(
        "terms", f"analysed and cancelled in stage 1 {resumed}", cancelled1 & record.analyzed
    )
    yield _problem("outputs", "a card stands under the id of another term", record.misplaced)
    if record.forgotten:
        return
    yield _problem("outputs", "analysed, but never accepted", record.analyzed - record.accepted)
    yield _problem("outputs", "finished, but never accepted", finished - record.accepted)
    yield _problem("outputs", "finished, but never analysed", finished - record.analyzed)
    off = "dead, but its message is gone: a replay was cut off; replay it again"
    yield _problem("terms", off, (dead1 - record.accepted) | (dead2 - record.analyzed))
    off = "cancelled, but its message is gone: `cardflow cancel BATCH --undo` sends it again"
    yield _problem("terms", off, (cancelled1 - record.accepted) | (cancelled2 - record.analyzed))


def _money_problems(record: BatchRecord, attempts: Attempts) -> Iterator[Problem]:
    for place, stage in enumerate(STAGES):
        unequal = []
        for id_, paid in record.finished.items():
            history = attempts.get(AttemptsKey(stage, record.batch, id_), AttemptHistory())
            if not _is_as_recorded(paid[place], history):
                unequal.append(id_)
        message = f"the card's calls or cost in {stage} are not those that were recorded"
        yield _problem("money", message, unequal)


def _is_as_recorded(said: Paid, history: AttemptHistory) -> bool:
    """What an uncertain call cost may have become known after the card was made, and while one hand
    publishes what it lost its claim on, another may be calling: the card can't tell of that call.
    """
    unsaid_calls = history.calls - said.calls
    late_usd = sum((a.cost_usd for a in history.attempts if a.outcome == "uncertain"), Decimal(0))
    unsaid_usd = history.cost_usd - said.cost_usd
    if unsaid_calls > 0:  # Then the uncertain call is on the card, and the other one's cost is not.
        late_usd += max(a.cost_usd for a in history.attempts)
    costs_known = -ROUNDING_USD <= unsaid_usd <= late_usd + ROUNDING_USD
    return 0 <= unsaid_calls <= history.uncertain and costs_known


class _Success(NamedTuple):
    """A billed success, and for which term."""

    key: AttemptsKey
    attempt: Attempt


def fingerprint_problems(attempts: Attempts, purges: Collection[CachePurge] = ()) -> list[Problem]:
    """Completions that were paid for more than once; one problem for each.

    `purges`: what somebody took out of the cache, so that it was asked for again.
    """
    paid: defaultdict[str, list[_Success]] = defaultdict(list)
    for key, history in attempts.items():
        for attempt in history.attempts:
            if _is_billed_success(attempt) and attempt.fingerprint:
                paid[attempt.fingerprint].append(_Success(key, attempt))
    found = []
    for fingerprint, successes in sorted(paid.items()):
        if len(successes) > 1 and not _is_purged_between(successes, purges):
            message = f"{len(successes)} billed successes for fingerprint {fingerprint}"
            found.append(_problem("fingerprints", message, [str(s.key) for s in successes]))
    return found


def _is_purged_between(successes: list[_Success], purges: Collection[CachePurge]) -> bool:
    """Whether each but the last was taken out before the next one was asked for."""
    in_order = sorted(successes, key=lambda success: success.attempt.started_at)
    return all(
        any(_took_out(purge, one, before=other.attempt.started_at) for purge in purges)
        for one, other in pairwise(in_order)
    )


def _took_out(purge: CachePurge, success: _Success, *, before: datetime) -> bool:
    kept_at = success.attempt.finished_at or success.attempt.started_at
    return (
        kept_at <= purge.at <= before
        and purge.stage in (None, success.key.service, "unknown")
        and purge.model in (None, success.attempt.model)
        and (purge.kept_before is None or kept_at < purge.kept_before)
    )


def _is_billed_success(attempt: Attempt) -> bool:
    return attempt.outcome == "billed" and attempt.error is None


def _problem(identity: Identity, message: str, ids: Collection[str]) -> Problem:
    return Problem(identity, message, tuple(sorted(ids)))
