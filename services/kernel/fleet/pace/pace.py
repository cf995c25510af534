"""Turns to call, within limits that all replicas of a stage keep together.

A turn takes a slot, held until the call ends, and a permit, which has its time. Both come from a
record that the replicas share (`record`), permits some at a time and a little ahead. Without
limits nothing is asked of anybody.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

from services.kernel.contracts.term import Priority
from services.kernel.fleet.background import background
from services.kernel.fleet.clock import FleetClock
from services.kernel.fleet.pace.giving import Giving
from services.kernel.fleet.pace.limits import NO_LIMITS, Limits
from services.kernel.fleet.pace.record import (
    AHEAD_S,
    LATE_S,
    Asked,
    PaceRecord,
    Permit,
    slots_of,
    sum_of,
)
from services.kernel.fleet.pace.taking import Taking
from services.kernel.fleet.pace.waiting import Waiter
from services.kernel.metrics import Metrics
from services.kernel.record import Record

_RENEW_S: Final = 5.0
"""A replica shows this often that it lives, three times within `ALIVE_S`."""
_LOOK_S: Final = 1.0
"""Nothing waits longer than this for being looked at again."""


class PaceTurn:
    """One turn: a slot until the call is over, and a permit for one call."""

    def __init__(self, pace: Pace, tokens: int, at: float) -> None:
        self._pace = pace
        self._tokens = tokens
        self._at = at
        self._is_over = False

    async def in_time(self) -> None:
        """To be awaited right before the call is sent: returns at once, as a rule.

        When the turn's permit has become too old meanwhile, another one is waited for: calls
        that were all held up by the same thing must not be sent all at the same moment.
        """
        self._at = await self._pace.still_good(self._at, self._tokens)

    def over(self) -> None:
        """The call has ended: its slot is free, although the block goes on. Once is enough."""
        if not self._is_over:
            self._is_over = True
            self._pace.end_turn()

    def used(self, tokens: int) -> None:
        """The true number of tokens. Unknown (0 or fewer) leaves the estimate."""
        if tokens > 0:
            self._pace.settle(tokens - self._tokens)
            self._tokens = tokens


class Pace:
    """The turns of one replica. `keep` has to run for as long as there may be limits.

    `limits` is asked at every turn. `concurrency` bounds this replica's calls at once; the limits
    are those of all replicas together. `settings` are shown to operators beside the limits.
    """

    def __init__(
        self,
        record: Record[PaceRecord],
        limits: Callable[[], Limits],
        clock: FleetClock,
        *,
        replica: str,
        concurrency: int,
        settings: Limits = NO_LIMITS,
        metrics: Metrics | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._limits = limits
        self._clock = clock
        self._replica = replica
        self._concurrency = concurrency
        self._settings = settings
        self._metrics = metrics
        self._chance = chance
        self._taking = Taking(record, replica)
        self._giving = Giving(
            clock.now, on_given=self._note_given, on_unused=self._taking.note_unused
        )
        self._most_needed = 0
        self._renew_at = 0.0
        self._due = asyncio.Event()
        self._needed = asyncio.Event()

    @asynccontextmanager
    async def turn(self, tokens: int, priority: Priority) -> AsyncIterator[PaceTurn]:
        """A turn inside the block, for a call of about so many tokens; waits for it."""
        waiter = Waiter(max(1, tokens), self._clock.now())
        self._giving.add(waiter, priority)
        self._most_needed = max(self._most_needed, self._giving.needed)
        at = await self._given(waiter, in_vain=self.end_turn)
        turn = PaceTurn(self, waiter.tokens, at)
        try:
            yield turn
        finally:
            turn.over()

    @property
    def limits(self) -> Limits:
        """Those in force."""
        return self._limits()

    def granted(self, last_s: int) -> int:
        """Turns given to all replicas in the last 1..60 s, as far as is known here."""
        now = self._clock.now()
        return sum_of(self._taking.value.granted, now, last_s) + sum_of(
            self._taking.reports.granted, now, last_s
        )

    async def still_good(self, at: float, tokens: int) -> float:
        """The time of a permit that can be used now: the one at `at`, or another one."""
        if not self._limits().are_paced or self._clock.now() <= at + LATE_S:
            return at
        self._taking.reports.given_back(self._clock.now(), tokens)
        waiter = Waiter(tokens, self._clock.now())
        self._giving.add_late(waiter)
        return await self._given(waiter)

    def settle(self, difference: int) -> None:
        """So many tokens more were used than estimated, or fewer."""
        self._taking.reports.settled(self._clock.now(), difference)

    def end_turn(self) -> None:
        """A slot is free."""
        self._giving.active -= 1
        self._look()

    def look_again(self) -> None:
        """The limits or the record have changed."""
        self._look()

    def limits_changed(self) -> None:
        """All replicas are to know soon by which limits this one goes."""
        self._renew_at = 0.0
        self._needed.set()
        self._look()

    async def keep(self) -> None:
        """Gives turns in time, takes permits, shows that the replica lives; for ever."""
        try:
            async with (
                background(self._give_when_due()),
                background(self._take_when_needed()),
            ):
                await self._taking.look_for_it()
        finally:
            await self._taking.leave()

    async def _given(self, waiter: Waiter, *, in_vain: Callable[[], None] = lambda: None) -> float:
        """The time of the permit; `in_vain`: it was given, but nobody is there to take it."""
        try:
            self._look()
            return await waiter.turn
        except BaseException:
            self._giving.remove(waiter)
            if waiter.turn.done() and not waiter.turn.cancelled():
                in_vain()
            raise

    def _look(self) -> None:
        self._give()
        if self._limits().are_shared:
            self._due.set()
            self._needed.set()

    def _give(self) -> None:
        limits = self._limits()
        self._giving.give(self._slots(limits), paced=limits.are_paced)

    def _note_given(self, waiter: Waiter, permit: Permit) -> None:
        now = self._clock.now()
        self._taking.reports.given(now, waiter.tokens, reserved=permit.tokens)
        if self._metrics is not None:
            self._metrics.turn_given(max(0.0, now - waiter.since))

    def _slots(self, limits: Limits) -> int:
        """How many calls this replica may have under way."""
        if not limits.calls_in_flight:
            return self._concurrency
        slots = self._taking.mine.slots
        if not self._taking.is_local:  # Others may be waiting for some of them.
            slots = min(slots, slots_of(self._taking.value, self._asked(limits)))
        return min(self._concurrency, slots)

    async def _give_when_due(self) -> None:
        while True:
            self._due.clear()
            self._give()
            in_s = self._giving.due_in_s()
            await _woken(self._due, _LOOK_S if in_s is None else in_s)

    async def _take_when_needed(self) -> None:
        while True:
            self._needed.clear()
            in_s = self._take_in_s()
            if in_s > 0:
                await _woken(self._needed, min(in_s, _LOOK_S))
            else:
                await self._take()

    def _take_in_s(self) -> float:
        """Seconds until the record is to be changed, or 0."""
        limits = self._limits()
        asked = self._asked(limits)
        in_s = self._renew_at - asked.now
        if in_s > _RENEW_S:  # The server's clock was set back.
            self._giving.drop_permits()
            return 0.0
        if self._slots_differ(asked) or self._taking.has_news(asked):
            return 0.0
        if self._wanting(limits):
            # Not all replicas at the same moment.
            later_s = self._chance() * AHEAD_S / 2
            in_s = min(in_s, self._taking.take_in_s(asked) + later_s)
        return max(0.0, in_s)

    def _slots_differ(self, asked: Asked) -> bool:
        """The record holds other slots for this replica than it is to hold, or hides a need."""
        if not asked.limits.calls_in_flight or self._taking.is_local:
            return False
        slots, mine = slots_of(self._taking.value, asked), self._taking.mine
        return slots != mine.slots or asked.wanted > max(slots, mine.wanted)

    async def _take(self) -> None:
        limits = self._limits()
        now = self._clock.now()
        if not now < self._renew_at <= now + _RENEW_S:
            self._renew_at = now + _RENEW_S
            self._most_needed = self._giving.needed
        permits = await self._taking.take(self._asked(limits, self._wanting(limits)))
        self._giving.add_permits(permits)
        if self._metrics is not None:
            self._metrics.paced(
                limits.model_dump(),
                slots=self._taking.mine.slots,
                is_local=self._taking.is_local,
            )
        self._due.set()

    def _asked(self, limits: Limits, waiting: tuple[int, ...] = ()) -> Asked:
        return Asked(
            replica=self._replica,
            now=self._clock.now(),
            limits=limits,
            settings=self._settings,
            waiting=waiting,
            wanted=self._wanted(),
            in_use=self._giving.active,
        )

    def _wanted(self) -> int:
        """Slots: as many as were needed lately, unless others wait for them."""
        needed = self._giving.needed
        others = self._taking.value.replicas.items()
        if not any(r.wanted > r.slots for name, r in others if name != self._replica):
            needed = max(needed, self._most_needed)
        return min(self._concurrency, needed)

    def _wanting(self, limits: Limits) -> tuple[int, ...]:
        return self._giving.wanting(self._slots(limits)) if limits.are_paced else ()


async def _woken(event: asyncio.Event, within_s: float) -> None:
    """Returns when the event is set, or after so many seconds."""
    with suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            await event.wait()
