"""When a provider counts as down: so many failures in a row, or too large a share of the calls.

Pure. A failure may be counted twice when the answer to its write was lost; that only opens sooner.
"""

from __future__ import annotations

from dataclasses import dataclass

from services.kernel.contracts.base import Contract
from services.kernel.fleet.health.circuit import Circuit


@dataclass(frozen=True)
class BreakerRules:
    """Opens on `in_a_row` failures, or when `share` of `least_calls` or more within `window_s`
    failed. It stays open for `first_s`, then twice as long each time that the probe fails.

    `longest_s` also bounds how long after the provider's recovery the fleet still waits.
    """

    in_a_row: int = 8
    share: float = 0.5
    least_calls: int = 20
    window_s: float = 30.0
    first_s: float = 5.0
    longest_s: float = 30.0


class Breaker(Contract):
    """`in_a_row`: failures since the last answer. `calls` and `failed` count since `window_at`.

    `suspect`: failures since an answer to a call that began after them, the newest at `failed_at`.
    Answers to what was under way before hide for a while that a provider went down.
    """

    circuit: Circuit = Circuit()
    in_a_row: int = 0
    suspect: int = 0
    failed_at: float = 0
    window_at: float = 0
    calls: int = 0
    failed: int = 0

    def is_counting(self, now: float, rules: BreakerRules) -> bool:
        """Answers count for the share of failures: there was one not long ago."""
        return 0 <= now - self.window_at <= rules.window_s

    def answered(self, calls: int, began_at: float, now: float, rules: BreakerRules) -> Breaker:
        """So many calls were answered, the newest begun at `began_at`. Closes the circuit."""
        if self.circuit.is_old_news(began_at):
            return self
        if self.circuit.open_until:
            return Breaker(circuit=self.circuit.closed(now))
        counted = self.calls + calls if self.is_counting(now, rules) else self.calls
        suspect = self.suspect if began_at <= self.failed_at else 0
        return self.model_copy(update={"in_a_row": 0, "suspect": suspect, "calls": counted})

    def failure(
        self, began_at: float, now: float, reason: str, jitter: float, rules: BreakerRules
    ) -> Breaker:
        """One call failed. Opens the circuit when that was one too many, or the probe."""
        if self.circuit.is_unheard_of(began_at):
            return self
        if not self.circuit.open_until:
            counted = self._counted(began_at, now, rules)
            if not counted.is_too_much(rules):
                return counted
        return self.shut(now, rules.first_s, rules.longest_s, reason, jitter)

    def shut(
        self, now: float, first_s: float, longest_s: float, reason: str, jitter: float
    ) -> Breaker:
        opened = self.circuit.opened(
            now, first_s=first_s, longest_s=longest_s, reason=reason, jitter=jitter
        )
        return Breaker(circuit=opened)

    def _counted(self, began_at: float, now: float, rules: BreakerRules) -> Breaker:
        if self.is_counting(now, rules):
            counts = {"calls": self.calls + 1, "failed": self.failed + 1}
        else:
            counts = {"calls": 1, "failed": 1}
        window_at = self.window_at if self.is_counting(now, rules) else now
        return self.model_copy(
            update={
                "in_a_row": self.in_a_row + 1,
                "suspect": self.suspect + 1,
                "failed_at": max(self.failed_at, began_at),
                "window_at": window_at,
                **counts,
            }
        )

    def is_too_much(self, rules: BreakerRules) -> bool:
        return self.in_a_row >= rules.in_a_row or (
            self.calls >= rules.least_calls and self.failed >= rules.share * self.calls
        )
