"""What can become of a term's attempts: pure functions, each harmless when it is applied twice.

Two hands can hold one message, so a change names its attempt by id and leaves the others alone.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from services.kernel.contracts.attempt import Attempt

Attempts = tuple[Attempt, ...]

_TAKEN_OVER: Final = "its process ended or was cut off before it was settled"


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
    return (*taken_over(kept, None), call)


def taken_over(attempts: Attempts, own: str | None) -> Attempts:
    """With the open calls of all other hands over: whoever made them can't say how they ended."""
    return tuple(a if a.id == own else _taken_over(a) for a in attempts)


def was_taken_over(attempts: Attempts, own: str | None) -> bool:
    return any(a.id == own and a.error == _TAKEN_OVER for a in attempts)


def _taken_over(attempt: Attempt) -> Attempt:
    if attempt.outcome != "started" or attempt.fingerprint is None:
        return attempt
    return attempt.model_copy(update={"outcome": "uncertain", "error": _TAKEN_OVER})


def settled(attempts: Attempts, own: str | None, settlement: dict[str, Any]) -> Attempts:
    return tuple(
        attempt.model_copy(update=_late(attempt, settlement)) if attempt.id == own else attempt
        for attempt in attempts
    )


def _late(attempt: Attempt, settlement: dict[str, Any]) -> dict[str, Any]:
    """An answer that came after somebody else took over is paid for, but is no second success."""
    if attempt.outcome == "uncertain" and settlement["outcome"] == "billed":
        return {**settlement, "outcome": "uncertain", "error": attempt.error}
    return settlement


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


def _has(attempts: Attempts, id_: str | None) -> bool:
    return any(attempt.id == id_ for attempt in attempts)
