"""When a failed term is tried again. A pure function from an error to a verdict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from services.kernel.errors import (
    BudgetReached,
    Outage,
    PermanentError,
    ReplyRejected,
    Throttled,
    TransientError,
)
from services.kernel.settings import RetrySettings

_BUDGET_CAP_S: Final = 30.0


@dataclass(frozen=True)
class Retry:
    """Hand it out again in `delay_s` seconds."""

    delay_s: float
    uses_attempt: bool = True


@dataclass(frozen=True)
class GiveUp:
    """Make it a dead letter; `reason` is a short code."""

    reason: str


@dataclass(frozen=True)
class RetryPolicy:
    """Exponential backoff with full jitter: delay = u · min(cap, base · 2^(attempt−1)), 0 ≤ u < 1.

    Full jitter spreads the retries of terms that failed together. A delay the other side named is
    a floor, itself capped: nobody makes us wait longer than `cap_s`.
    """

    max_attempts: int
    base_s: float
    cap_s: float

    @classmethod
    def of(cls, settings: RetrySettings) -> RetryPolicy:
        return cls(settings.max_attempts, settings.base_s, settings.cap_s)

    def decide(self, error: Exception, *, attempt: int, jitter: float) -> Retry | GiveUp:
        """The verdict on `error` after `attempt` attempts (from 1); `jitter` is u."""
        match error:
            case PermanentError() | ReplyRejected():  # The reply of a repair, or past repair.
                return GiveUp(error.reason)
            case BudgetReached():
                return Retry(self._short_delay_s(attempt, jitter), uses_attempt=False)
            case Outage() | Throttled():
                return Retry(self._delay_s(error, attempt, jitter), uses_attempt=False)
        if attempt >= self.max_attempts:
            return GiveUp(_reason(error))
        return Retry(self._delay_s(error, attempt, jitter))

    def _delay_s(self, error: Exception, attempt: int, jitter: float) -> float:
        exponent = min(max(attempt, 1) - 1, 30)
        backoff = jitter * min(self.cap_s, self.base_s * 2.0**exponent)
        named = getattr(error, "retry_after_s", None) or 0.0
        return max(backoff, min(named, self.cap_s))

    def _short_delay_s(self, attempt: int, jitter: float) -> float:
        """Grows to between 15 and 30 s: how soon terms go on when their budget is raised."""
        bound = min(self.cap_s, _BUDGET_CAP_S, self.base_s * 2.0 ** min(max(attempt, 1), 30))
        return bound * (1 + jitter) / 2


def _reason(error: Exception) -> str:
    return "attempts_used_up" if isinstance(error, TransientError) else "unexpected_error"
