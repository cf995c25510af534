"""One replica's share of one account, in memory: calls are paid out of it without a round trip.

`ceiling` is what this replica may have spent and reserved at most. It rises when a write that
raises it is confirmed, and falls before one that lowers it is sent: whichever of them the server
has, it covers what is spent.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Final

from services.kernel.fleet.money.spending import Account, Standing, closed, renewed
from services.kernel.record import Record

_NOTHING: Final = Decimal(0)

LimitOf = Callable[[Account], Decimal | None]


class Purse:
    """`name` tells this replica's share from others'. `limit_of` says which limit holds now."""

    def __init__(self, key: str, record: Record[Account], name: str, limit_of: LimitOf) -> None:
        self.key = key
        self.waiting: dict[object, Decimal] = {}
        """The worst cases of the calls that wait for money."""
        self.looked_at = float("-inf")
        self.used_at = float("-inf")
        self.epoch = 0
        """Reservations of an earlier epoch are in the account already, as its worst case."""
        self._record = record
        self._name = name
        self._limit_of = limit_of
        self._step = _NOTHING
        self._ceiling = _NOTHING
        self._is_open = False
        self._is_closing = False
        self._empty()

    def _empty(self) -> None:
        self._settled = self._uncertain = self._reserved = _NOTHING
        self._under_way = 0

    @property
    def account(self) -> Account:
        """As of the last look."""
        return self._record.value

    @property
    def limit(self) -> Decimal | None:
        return self._limit_of(self.account)

    @property
    def is_known(self) -> bool:
        """The account was looked at already."""
        return self.looked_at > float("-inf")

    @property
    def is_in_use(self) -> bool:
        return bool(self.waiting or self._under_way)

    @property
    def is_open(self) -> bool:
        """There is something to write down or to give back."""
        return self._is_open or bool(self._spent)

    @property
    def step(self) -> Decimal:
        """The worst case of one call: of the dearest that waits, or the last one."""
        return max(self.waiting.values(), default=self._step)

    def is_reached(self, worst: Decimal, now: float) -> bool:
        """There is no money for such a call, nor will any come back."""
        return self.is_known and self.account.is_reached(self.limit, worst, now)

    def can_take(self, worst: Decimal) -> bool:
        if not self.is_known or self._is_closing:
            return False
        return not worst or self._spent + self._reserved + worst <= self._ceiling

    @property
    def _spent(self) -> Decimal:
        return self._settled + self._uncertain

    def take(self, worst: Decimal, now: float) -> int:
        """Reserves; the epoch to name when it is released."""
        self._reserved += worst
        self._under_way += 1
        self._step = worst
        self.used_at = now
        return self.epoch

    def release(
        self, epoch: int, worst: Decimal, *, settled: Decimal, uncertain: Decimal, now: float
    ) -> None:
        """Ends a reservation: with what was billed, and what may have been."""
        self.used_at = now
        if epoch != self.epoch:
            return
        self._reserved -= worst
        self._under_way -= 1
        self._uncertain += uncertain
        self._settled += settled

    async def look(self, now: float) -> None:
        """Raises Outage."""
        await self._record.load()
        self.looked_at = now

    async def renew(self, now: float, *, headroom: Decimal) -> None:
        """Writes down what was spent, and asks for `headroom` to pay calls to come from.

        Raises Outage. A cancelled write may have been done or not, like one without an answer.
        """
        await self.look(now)
        account = await self._record.change(lambda account: self._renewed(account, now, headroom))
        self._is_open = True
        self._ceiling = account.shares[self._name].total_usd

    def _renewed(self, account: Account, now: float, headroom: Decimal) -> Account:
        self._begin_anew_if_closed(account)
        mine = self._standing(headroom)
        after = renewed(account, self._name, mine, limit=self._limit_of(account), now=now)
        self._ceiling = min(self._ceiling, after.shares[self._name].total_usd)
        return after

    async def close(self, now: float) -> None:
        """Writes down what was spent and gives the rest back. Raises Outage.

        What is still reserved, which can be at a stop only, is uncertain from now on.
        """
        self._is_closing = True
        try:
            if not self._is_open:
                await self.renew(now, headroom=_NOTHING)
            self._ceiling = self._spent
            mine = self._standing(_NOTHING)
            await self._record.change(lambda account: closed(account, self._name, mine, now=now))
            self._begin_anew()
        finally:
            self._is_closing = False

    def _begin_anew_if_closed(self, account: Account) -> None:
        """By us, though the answer was lost, or by others who took us for dead."""
        if self._is_open and self._name not in account.shares:
            self._begin_anew()

    def _begin_anew(self) -> None:
        self._empty()
        self._is_open = False
        self._ceiling = _NOTHING
        self.epoch += 1

    def _standing(self, headroom: Decimal) -> Standing:
        waiting = sum(self.waiting.values(), _NOTHING)
        return Standing(
            settled=self._settled,
            uncertain=self._uncertain,
            reserved=self._reserved,
            wanted=max(headroom, waiting),
            step=self.step,
            is_waiting=bool(self.waiting),
        )
