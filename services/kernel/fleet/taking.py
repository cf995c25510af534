"""Taking permits and slots from the shared record; while it is away, a fair share on one's own."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Final

import structlog
from pydantic import ValidationError

from services.kernel.errors import Outage
from services.kernel.fleet.limits import Limits
from services.kernel.fleet.pace_record import (
    AHEAD_S,
    Asked,
    PaceRecord,
    PaceReplica,
    Permit,
    request_interval_s,
    take,
)
from services.kernel.record import Record

_ANSWER_S: Final = 1.0
"""For one change of the record; then it counts as away. Permits are taken ahead for half of it."""
_AGAIN_S: Final = 1.0
"""Between two tries while it is away."""


@dataclass
class Reports:
    """What the record has not heard yet: turns given, tokens used, and tokens owed."""

    granted: Counter[int] = field(default_factory=Counter)
    tokens: Counter[int] = field(default_factory=Counter)
    owed: int = 0

    def given(self, now: float, tokens: int, *, reserved: int) -> None:
        """A turn for a call of about so many tokens, of which some were reserved."""
        self.granted[int(now)] += 1
        self.tokens[int(now)] += tokens
        self.owed += tokens - reserved

    def given_back(self, now: float, tokens: int) -> None:
        """A turn was given, and its permit became too old to be used."""
        self.granted[int(now)] -= 1
        self.settled(now, -tokens)

    def settled(self, now: float, difference: int) -> None:
        """A call used so many tokens more than estimated, or fewer."""
        self.tokens[int(now)] += difference
        self.owed += difference


class Taking:
    """One replica's hand on the shared record. For one change at a time."""

    def __init__(self, record: Record[PaceRecord], replica: str) -> None:
        self._record = record
        self._replica = replica
        self._change = 0
        self._own: PaceRecord | None = None
        self._try_at = 0.0
        self._log = structlog.get_logger()
        self.reports = Reports()

    @property
    def is_local(self) -> bool:
        """The shared record is away: permits are this replica's fair share."""
        return self._own is not None

    @property
    def value(self) -> PaceRecord:
        """The shared record as of the last look."""
        return self._record.value

    @property
    def permits_from(self) -> PaceRecord:
        """The record that permits are taken from at present."""
        return self._own or self._record.value

    @property
    def mine(self) -> PaceReplica:
        """What the shared record holds of this replica."""
        return self.value.replicas.get(self._replica) or PaceReplica(seen_at=0)

    async def take(self, asked: Asked) -> tuple[Permit, ...]:
        """One change of the record, and the permits had by it, earliest first."""
        if self._own is not None and asked.now < self._try_at:
            return self._take_locally(asked)
        try:
            permits = await self._take(asked)
        except (Outage, TimeoutError, ValidationError) as error:
            self._go_local(asked, error)
            return self._take_locally(asked)
        if self._own is not None:
            self._own = None
            self._log.info("pace.shared")
        return permits

    async def leave(self) -> None:
        """Gives back what this replica holds. When it can't, that is free after a while."""
        with suppress(Outage, TimeoutError, ValidationError):
            async with asyncio.timeout(_ANSWER_S):
                await self._record.change(self._without_me)

    def _without_me(self, record: PaceRecord) -> PaceRecord:
        others = {name: r for name, r in record.replicas.items() if name != self._replica}
        return record.model_copy(update={"replicas": others})

    async def _take(self, asked: Asked) -> tuple[Permit, ...]:
        self._change += 1
        reports, self.reports = self.reports, Reports()
        asked = replace(
            asked,
            change=self._change,
            owed=reports.owed,
            granted=reports.granted,
            tokens=reports.tokens,
            # The one permit by which a replica on its own may have been early.
            skipped=1 if self._own is not None else 0,
        )
        taken: tuple[Permit, ...] = ()

        def change(record: PaceRecord) -> PaceRecord:
            nonlocal taken
            mine = record.replicas.get(self._replica)
            if mine is not None and mine.change == asked.change:
                return record  # Written, but its answer was lost; its permits were, too, maybe.
            changed, taken = take(record, asked)
            return changed

        try:
            async with asyncio.timeout(_ANSWER_S):
                await self._record.change(change)
        except BaseException:
            # It may be written. What would give us more is not reported again.
            self.reports.owed += max(0, reports.owed)
            raise
        return taken

    def _go_local(self, asked: Asked, error: Exception) -> None:
        self._try_at = asked.now + _AGAIN_S
        if self._own is not None:
            return
        limits = self._own_limits(asked)
        known = self.value
        first_at = max(known.permit_at, asked.now + AHEAD_S) + request_interval_s(limits)
        self._own = known.model_copy(
            update={
                "permit_at": first_at,
                "tokens_at": max(known.tokens_at, first_at),
                "limits": limits,
            }
        )
        self._log.warning(
            "pace.local",
            error=repr(error),
            replicas=self._replicas(asked),
            requests_per_minute=round(limits.requests_per_minute, 3),
        )

    def _take_locally(self, asked: Asked) -> tuple[Permit, ...]:
        assert self._own is not None  # noqa: S101
        self._own, permits = take(self._own, replace(asked, limits=self._own_limits(asked)))
        return permits

    def _own_limits(self, asked: Asked) -> Limits:
        """One permit a minute less than the share: each replica's first one is early."""
        replicas, limits = self._replicas(asked), asked.limits
        requests = limits.requests_per_minute / replicas
        return limits.model_copy(
            update={
                "requests_per_minute": max(requests - 1, requests / 2),
                "tokens_per_minute": limits.tokens_per_minute / replicas,
            }
        )

    def _replicas(self, asked: Asked) -> int:
        """As many as were alive when the record was last seen."""
        others = set(self.value.alive(self.value.written_at)) - {self._replica}
        return 1 + len(others)
