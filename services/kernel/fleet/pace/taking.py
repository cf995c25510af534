"""Taking permits and slots from the shared record; while it is away, a fair share on one's own."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Final

import structlog
from pydantic import ValidationError

from services.kernel.errors import Outage
from services.kernel.fleet.pace.limits import Limits
from services.kernel.fleet.pace.record import (
    AHEAD_S,
    Asked,
    PaceRecord,
    PaceReplica,
    Permit,
    opens_at,
    request_interval_s,
    seconds_owed,
    take,
)
from services.kernel.record import Record

_ANSWER_S: Final = 1.0
"""For one answer about the record; then it counts as away."""
_NEWS_S: Final = 0.1
"""Tokens that make so many seconds of the limit are reported at once."""
_AGAIN_S: Final = 1.0
"""Between two looks while it is away."""
_SECONDS_MAX: Final = 120
"""What was done longer ago than a minute is of no interest, however long nobody could be told."""
_FAULTS: Final = (Outage, TimeoutError, ValidationError)


@dataclass
class Reports:
    """What the record has not heard yet: turns given, tokens used, and tokens owed."""

    granted: Counter[int] = field(default_factory=Counter)
    tokens: Counter[int] = field(default_factory=Counter)
    owed: int = 0

    def given(self, now: float, tokens: int, *, reserved: int) -> None:
        """A turn for a call of about so many tokens, of which some were reserved."""
        if len(self.granted) > _SECONDS_MAX:
            self.granted.clear()
            self.tokens.clear()
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
        self._is_away = asyncio.Event()
        self._log = structlog.get_logger()
        self.reports = Reports()

    @property
    def is_local(self) -> bool:
        """The shared record is away: permits are this replica's fair share."""
        return self._is_away.is_set()

    @property
    def value(self) -> PaceRecord:
        """The shared record as of the last look."""
        return self._record.value

    @property
    def mine(self) -> PaceReplica:
        """What the shared record holds of this replica."""
        return self.value.replicas.get(self._replica) or PaceReplica(seen_at=0)

    def take_in_s(self, asked: Asked) -> float:
        """Seconds until the next permit can be taken."""
        asked = replace(asked, owed=self.reports.owed)
        if self.is_local:
            asked = replace(asked, limits=self._own_limits(asked.limits))
        return opens_at(self._own or self.value, asked) - asked.now

    def has_news(self, asked: Asked) -> bool:
        """The others should know of tokens that were used, or reserved in vain."""
        asked = replace(asked, owed=self.reports.owed)
        return not self.is_local and seconds_owed(asked) > _NEWS_S

    async def take(self, asked: Asked) -> tuple[Permit, ...]:
        """One change of the record, and the permits had by it, earliest first.

        While the record can't be reached they come from a share of this replica's own.
        """
        if self.is_local:
            return self._take_locally(asked)
        try:
            permits = await self._take(asked)
        except _FAULTS as error:
            self._is_away.set()
            self._log.warning("pace.local", error=repr(error), replicas=self._replicas())
            return ()
        if self._own is not None:
            self._own = None
            self._log.info("pace.shared")
        return permits

    def note_unused(self, permit: Permit) -> None:
        """Its time has passed; the tokens reserved with it are free."""
        self.reports.owed -= permit.tokens

    async def look_for_it(self) -> None:
        """Finds out when a record that was away is back; for ever."""
        while True:
            await self._is_away.wait()
            await asyncio.sleep(_AGAIN_S)
            with suppress(*_FAULTS):
                async with asyncio.timeout(_ANSWER_S):
                    await self._record.load()
                self._is_away.clear()

    async def leave(self) -> None:
        """Gives back what this replica holds. When it can't, that is free after a while."""
        with suppress(*_FAULTS):
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
            skipped=self._ahead(asked),
        )
        taken: tuple[Permit, ...] = ()

        def change(record: PaceRecord) -> PaceRecord:
            nonlocal taken
            mine = record.replicas.get(self._replica)
            if mine is not None and mine.change == asked.change:
                return record  # It was written, and only the answer was lost.
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

    def _take_locally(self, asked: Asked) -> tuple[Permit, ...]:
        limits = self._own_limits(asked.limits)
        if self._own is None:
            # Others may hold permits for as long as they can be taken ahead.
            known_at = max(self.value.permit_at, asked.now + AHEAD_S)
            first_at = known_at + request_interval_s(limits)
            self._own = self.value.model_copy(update={"permit_at": first_at, "limits": limits})
        owed, self.reports.owed = self.reports.owed, 0
        self._own, permits = take(self._own, replace(asked, limits=limits, owed=owed))
        return permits

    def _ahead(self, asked: Asked) -> int:
        """How many permits of its own this replica has taken for later, and one.

        By that one it may have been early among the others.
        """
        interval_s = request_interval_s(self._own_limits(asked.limits))
        if self._own is None or not interval_s:
            return 0
        return max(1, math.ceil((self._own.permit_at - asked.now) / interval_s))

    def _own_limits(self, limits: Limits) -> Limits:
        """One permit a minute less than the share: each replica's first one may be early."""
        replicas = self._replicas()
        requests = limits.requests_per_minute / replicas
        return limits.model_copy(
            update={
                "requests_per_minute": max(requests - 1, requests / 2),
                "tokens_per_minute": limits.tokens_per_minute / replicas,
            }
        )

    def _replicas(self) -> int:
        """As many as were alive when the record was last seen."""
        others = set(self.value.alive(self.value.written_at)) - {self._replica}
        return 1 + len(others)
