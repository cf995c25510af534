"""What can become of a term's attempts: pure functions, each harmless when it is applied twice.

Two hands can hold one message, so a change names its attempt by id and leaves the others alone.
"""

from __future__ import annotations

from collections.abc import Set
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from services.kernel.contracts.attempt import Attempt, Outcome
from services.kernel.contracts.provenance import Usage

Attempts = tuple[Attempt, ...]

TAKEN_OVER: Final = "its process ended or was cut off before it was settled"


def appended(attempts: Attempts, attempt: Attempt) -> Attempts:
    return attempts if _has(attempts, attempt.id) else (*attempts, attempt)


def unmarked(attempts: Attempts, mark: str) -> Attempts:
    """Without the mark of a delivery that did nothing."""
    return tuple(a for a in attempts if a.id != mark or a.outcome != "started")


def begun(attempts: Attempts, call: Attempt, marked: str | None) -> Attempts:
    """With the call, in place of the mark that this delivery made; others' open calls are over."""
    if _has(attempts, call.id):
        return attempts
    kept = tuple(a for a in attempts if marked is None or a.id != marked)
    return (*(_taken_over(a) if a.fingerprint else a for a in kept), call)


def closed(attempts: Attempts, own: str | None) -> Attempts:
    """With all that other hands have open over, before the term is given up."""
    return tuple(a if a.id == own else _taken_over(a) for a in attempts)


def was_taken_over(attempts: Attempts, own: str) -> bool:
    return any(a.id == own and a.error == TAKEN_OVER for a in attempts)


def _taken_over(attempt: Attempt) -> Attempt:
    """Whoever opened it can't say any more how it ended."""
    if attempt.outcome != "started":
        return attempt
    outcome = "uncertain" if attempt.fingerprint else "failed"
    return attempt.model_copy(update={"outcome": outcome, "error": TAKEN_OVER})


class PaidFor(Protocol):
    """What the ledger records of a completion; `call_id` is the attempt that it came from."""

    @property
    def call_id(self) -> str | None: ...

    @property
    def model(self) -> str: ...

    @property
    def generation_id(self) -> str | None: ...

    @property
    def usage(self) -> Usage: ...


def settlement_of(outcome: Outcome, paid_for: PaidFor | None, error: str | None) -> dict[str, Any]:
    settlement: dict[str, Any] = {"outcome": outcome, "error": error, "finished_at": now()}
    if paid_for is not None:
        settlement |= {
            "model": paid_for.model,
            "generation_id": paid_for.generation_id,
            "prompt_tokens": paid_for.usage.prompt_tokens,
            "completion_tokens": paid_for.usage.completion_tokens,
            "cost_usd": paid_for.usage.cost_usd,
        }
    return settlement


def now() -> datetime:
    return datetime.now(UTC)


def settled(attempts: Attempts, own: str, settlement: dict[str, Any]) -> Attempts:
    return tuple(
        attempt.model_copy(update=_late(attempt, settlement)) if attempt.id == own else attempt
        for attempt in attempts
    )


def _late(attempt: Attempt, settlement: dict[str, Any]) -> dict[str, Any]:
    """An answer that came after somebody else took over is paid for, but is no second success."""
    if attempt.error != TAKEN_OVER:
        return settlement
    return {**settlement, "outcome": attempt.outcome, "error": attempt.error}


def put_off(attempts: Attempts, own: str, settlement: dict[str, Any]) -> Attempts:
    """Refusals in a row become one entry: a provider may turn us away for days."""
    place = next((i for i, a in enumerate(attempts) if a.id == own), None)
    if place is None or attempts[place].outcome == "throttled":
        return attempts
    throttled = attempts[place].model_copy(update=settlement)
    before = attempts[place - 1] if place else None
    if before and before.outcome == "throttled" and before.replay == throttled.replay:
        kept = {"id": before.id, "times": before.times + 1, "started_at": before.started_at}
        merged = throttled.model_copy(update=kept)
        return (*attempts[: place - 1], merged, *attempts[place + 1 :])
    return (*attempts[:place], throttled, *attempts[place + 1 :])


def failed(attempts: Attempts, own: str, error: str, now: datetime) -> Attempts:
    def ended(attempt: Attempt) -> Attempt:
        outcome = "failed" if attempt.outcome == "started" else attempt.outcome
        return attempt.model_copy(update={"outcome": outcome, "error": error, "finished_at": now})

    if was_taken_over(attempts, own):
        return attempts
    return tuple(ended(attempt) if attempt.id == own else attempt for attempt in attempts)


def is_answered(attempt: Attempt) -> bool:
    return attempt.outcome in ("billed", "cached") and attempt.error is None


def answered(attempts: Attempts) -> Set[str]:
    """The ids of those that have a result."""
    return {attempt.id for attempt in attempts if is_answered(attempt)}


def in_vain(attempts: Attempts, replay: int, own: Set[str] = frozenset()) -> int:
    """Attempts of a replay since its last answer, but for one's own that got no reply.

    The rest of the way is free: a term that was paid for has as many tries for that as it had for
    the answer.
    """
    counted = [a for a in attempts if a.replay == replay and a.outcome != "throttled"]
    answers = [place for place, attempt in enumerate(counted, 1) if is_answered(attempt)]
    since = counted[answers[-1] if answers else 0 :]
    return sum(attempt.id not in own or attempt.outcome == "billed" for attempt in since)


def _has(attempts: Attempts, id_: str) -> bool:
    return any(attempt.id == id_ for attempt in attempts)
