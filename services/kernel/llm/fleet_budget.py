"""The money of one stage, shared with all replicas: a call's worst case is set aside before it.

A call is paid out of three purses, of its day, its stage and its batch; see
`kernel.fleet.money.purses`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from services.kernel.contracts.base import Batch
from services.kernel.errors import BatchCancelled, BudgetReached
from services.kernel.fleet.money.purse import Purse
from services.kernel.fleet.money.purses import Purses
from services.kernel.fleet.money.words import reached_words, unpriced_words
from services.kernel.llm.prices import WorstCase
from services.kernel.llm.prompt import Inquiry

_NOTHING: Final = Decimal(0)


class _Reservation:
    """Implements `kernel.llm.budget.Reservation`."""

    def __init__(self) -> None:
        self.billed: Decimal | None = None
        self.is_kept = False

    def keep(self) -> None:
        self.is_kept = True

    def settle(self, cost_usd: Decimal) -> None:
        self.billed = cost_usd


@dataclass(frozen=True)
class _Taken:
    """The money of one call: out of which purses, in which epoch of each, and how much."""

    purses: tuple[tuple[Purse, int], ...]
    worst: Decimal


class FleetBudget:
    """Implements `kernel.llm.budget.Budget`."""

    def __init__(self, purses: Purses, worst_case: WorstCase) -> None:
        self._purses = purses
        self._worst_case = worst_case
        self._circumstances = purses.circumstances

    @asynccontextmanager
    async def reserve(self, inquiry: Inquiry, batch: Batch) -> AsyncIterator[_Reservation]:
        """Waits for money of the day and the stage; for that of the batch while it may come back.

        Raises BudgetReached for a batch without money, or when the service stops meanwhile, and
        BatchCancelled.
        """
        taken = await self._taken(inquiry, batch)
        reservation = _Reservation()
        try:
            yield reservation
        finally:
            self._release(inquiry, taken, reservation)

    def _release(self, inquiry: Inquiry, taken: _Taken, reservation: _Reservation) -> None:
        billed = reservation.billed
        is_unknown = billed is None and reservation.is_kept
        for purse, epoch in taken.purses:
            purse.release(
                epoch,
                taken.worst,
                settled=billed or _NOTHING,
                uncertain=taken.worst if is_unknown else _NOTHING,
                now=self._purses.now(),
            )
        if any(purse.waiting for purse, _ in taken.purses):
            self._purses.wake()  # What this call did not need may be enough for another one.
        if billed is not None:
            self._worst_case.note_bill(inquiry, taken.worst, billed)

    async def _taken(self, inquiry: Inquiry, batch: Batch) -> _Taken:
        """One purse after the other, always in the same order: while it waits for one, a call
        keeps what it has of those before and of none behind, so that no two wait for each other.
        """
        asked = ""
        while True:
            worst = self._worst_case(inquiry)
            purses = self._purses.of(batch)
            held = _paying(purses, worst)
            if held == len(purses):
                now, paid = self._purses.now(), worst or _NOTHING
                return _Taken(tuple((p, p.take(paid, now)) for p in purses), paid)
            self._give_up_if_vain(purses[-1], batch, inquiry, worst)
            with self._waiting(purses[: held + 1], inquiry, worst):
                if purses[held].key != asked:
                    asked = purses[held].key
                    self._purses.wake()
                await self._purses.changed()

    def _give_up_if_vain(
        self, purse: Purse, batch: Batch, inquiry: Inquiry, worst: Decimal | None
    ) -> None:
        """So that others get the place. `purse` is that of the batch."""
        now = self._purses.now()
        if self._circumstances.is_stopping:
            raise BudgetReached("the service stopped while the call waited for money")
        if batch in self._circumstances.cancelled:
            raise BatchCancelled(f"batch {batch} was cancelled while its call waited for money")
        if worst is None and purse.limit is not None:
            raise BudgetReached(unpriced_words(self._worst_case.unpriced(inquiry)))
        if worst is not None and purse.is_reached(worst, now):
            purse.used_at = now
            self._circumstances.unaffordable.add(batch)
            raise BudgetReached(reached_words(purse.key, purse.account, purse.limit, worst, now))

    @contextmanager
    def _waiting(
        self, purses: Sequence[Purse], inquiry: Inquiry, worst: Decimal | None
    ) -> Iterator[None]:
        call = object()
        if worst is None and any(purse.limit is not None for purse in purses):
            self._purses.unpriced[call] = unpriced_words(self._worst_case.unpriced(inquiry))
        for purse in purses:
            purse.waiting[call] = worst or _NOTHING
        try:
            yield
        finally:
            self._purses.unpriced.pop(call, None)
            for purse in purses:
                del purse.waiting[call]


def _paying(purses: Sequence[Purse], worst: Decimal | None) -> int:
    """How many of them, from the first on, can pay. Without a price none that is limited can."""
    for place, purse in enumerate(purses):
        is_unpriced = worst is None and purse.limit is not None
        if is_unpriced or not purse.can_take(worst or _NOTHING):
            return place
    return len(purses)
