"""What the simulator has done so far: calls, money, failures and what was asked twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from services.simulator.asked import STAGES, Asked
from services.simulator.pricing import to_usd


class Ledger:
    """Counts from the start of the process; nothing is ever reset.

    `answered` are complete billed replies, malformed ones too. A reply that was cut in its body is
    charged, as a real provider would, but not answered: `lost_usd` is the part of `charged_usd`
    that no caller can know from a reply.
    """

    def __init__(self, started_at: str) -> None:
        self._started_at = started_at
        self.calls = 0
        self.errors: Counter[str] = Counter()
        self.malformed: Counter[str] = Counter()
        self._charged = 0
        self._lost = 0
        self._by_stage: Counter[str] = Counter(dict.fromkeys(STAGES, 0))
        self._terms: dict[str, Counter[str]] = {stage: Counter() for stage in STAGES}
        self._answers: Counter[tuple[str, str, bytes]] = Counter()
        self._duplicates = 0
        self._tries: Counter[tuple[str, str]] = Counter()
        self._in_flight = 0
        self._highest = 0

    @contextmanager
    def in_flight(self) -> Iterator[None]:
        self._in_flight += 1
        self._highest = max(self._highest, self._in_flight)
        try:
            yield
        finally:
            self._in_flight -= 1

    def next_try(self, asked: Asked) -> int:
        """How many calls for this term and stage were let in, this one included."""
        self._tries[asked.stage, asked.identity] += 1
        return self._tries[asked.stage, asked.identity]

    def charge_answer(self, asked: Asked, nano_usd: int) -> None:
        self._charged += nano_usd
        self._by_stage[asked.stage] += 1
        if asked.stage not in self._terms:
            return
        self._terms[asked.stage][asked.term_key] += 1
        question = (asked.stage, asked.model, asked.message_hash)
        self._answers[question] += 1
        self._duplicates += self._answers[question] == 2

    def charge_lost(self, nano_usd: int) -> None:
        self._charged += nano_usd
        self._lost += nano_usd

    def stats(self, *, with_terms: bool) -> dict[str, Any]:
        stats: dict[str, Any] = {
            "calls": self.calls,
            "answered": sum(self._by_stage.values()),
            "charged_usd": to_usd(self._charged),
            "lost_usd": to_usd(self._lost),
            "by_stage": dict(self._by_stage),
            "errors": dict(self.errors),
            "malformed": dict(self.malformed),
            "in_flight": self._in_flight,
            "highest_concurrency": self._highest,
            "duplicates": self._duplicates,
            "started_at": self._started_at,
        }
        if with_terms:
            stats["terms"] = {stage: dict(terms) for stage, terms in self._terms.items()}
        return stats
