"""The purses of one replica: opened when a call needs them, looked after together, closed.

Every half second, or when a call waits, what was spent is written down and what is held is fitted
to what is needed: money costs a few writes a second and not two a call. Who makes no calls holds
nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from typing import Final, NamedTuple

import structlog

from services.kernel.circumstances import Circumstances
from services.kernel.errors import Outage
from services.kernel.fleet.money.limits import ACCOUNTS, BudgetLimits, Kind, account_key, day_of
from services.kernel.fleet.money.purse import Purse
from services.kernel.fleet.money.spending import Account
from services.kernel.fleet.money.words import reached_words
from services.kernel.metrics import Metrics
from services.kernel.record import Record

_TICK_S: Final = 0.5
_IDLE_S: Final = 0.5
"""Who has made no call for so long gives its money back at the next tick."""
_LOOK_S: Final = 5.0
"""Accounts that this replica holds nothing of are looked at this often while they matter."""
_KEPT_S: Final = 10.0
_UNAFFORDABLE_KEPT_S: Final = 300.0
"""A batch that is over its budget and has not come up for so long is no concern any more."""
_HEADROOM_CALLS: Final = 2
"""Money for so many calls a worker is held beside that of the calls under way."""
_NOTHING: Final = Decimal(0)


class Bounds(NamedTuple):
    """The limits of the settings, in USD."""

    day: Decimal | None = None
    stage: Decimal | None = None


class Purses:
    """`run()` must run meanwhile; `close()` ends it.

    `name` tells this replica from all others that ever were; `now` gives seconds since the epoch,
    the same for all. `note_trouble` hears why calls wait for money, and None when they don't.
    `unpriced` has the reason of each call that waits for a price.
    """

    def __init__(
        self,
        record: Callable[[str], Record[Account]],
        limits: Callable[[], BudgetLimits],
        bounds: Bounds,
        *,
        stage: str,
        name: str,
        concurrency: int,
        now: Callable[[], float],
        metrics: Metrics,
        circumstances: Circumstances,
        note_trouble: Callable[[str | None], None] = lambda _reason: None,
    ) -> None:
        self.now = now
        self.circumstances = circumstances
        self.unpriced: dict[object, str] = {}
        self._record = record
        self._limits = limits
        self._bounds = bounds
        self._stage = stage
        self._name = name
        self._headroom_calls = _HEADROOM_CALLS * concurrency
        self._metrics = metrics
        self._note_trouble = note_trouble
        self._purses: dict[str, Purse] = {}
        self._reached: set[str] = set()
        self._woken = asyncio.Event()
        self._changed = asyncio.Event()
        self._log = structlog.get_logger()

    def of(self, batch: str) -> tuple[Purse, Purse, Purse]:
        """Those that a call for the batch is paid out of now: of the day, the stage, the batch."""
        return *self._shared(), self._purse("batch", batch)

    def wake(self) -> None:
        """A call waits: looks after what it waits for now, instead of at the next tick."""
        self._woken.set()

    def look_again(self) -> None:
        """A limit has changed: looks after all of them now."""
        for purse in self._purses.values():
            purse.looked_at = min(purse.looked_at, self.now() - _LOOK_S)
        self._woken.set()

    async def changed(self) -> None:
        """Returns when all that was due has been looked after once more."""
        await self._changed.wait()

    async def run(self) -> None:
        """Looks after the purses, for ever."""
        while True:
            is_busy = any(purse.is_open or purse.waiting for purse in self._purses.values())
            with suppress(TimeoutError):
                async with asyncio.timeout(_TICK_S if is_busy else _LOOK_S):
                    await self._woken.wait()
            self._woken.clear()
            await self._tick()

    async def close(self) -> None:
        """Writes everything down and gives back what is held."""
        now = self.now()
        for purse in self._purses.values():
            if purse.is_open:
                with suppress(Outage):  # Then what is held stays held until it counts as uncertain.
                    await purse.close(now)

    def _shared(self) -> tuple[Purse, Purse]:
        return self._purse("day", day_of(self.now())), self._purse("stage", self._stage)

    def _purse(self, kind: Kind, name: str) -> Purse:
        key = account_key(kind, name)
        purse = self._purses.get(key)
        if purse is None:
            limit_of = {"day": self._day_limit, "stage": self._stage_limit, "batch": _own_limit}
            purse = Purse(key, self._record(key), self._name, limit_of[kind])
            purse.used_at = self.now()
            self._purses[key] = purse
        return purse

    def _day_limit(self, _account: Account) -> Decimal | None:
        set_usd = self._limits().day_usd
        return self._bounds.day if set_usd is None else set_usd

    def _stage_limit(self, _account: Account) -> Decimal | None:
        return self._limits().stages.get(self._stage, self._bounds.stage)

    async def _tick(self) -> None:
        self._shared()
        now = self.now()
        due = [purse for purse in self._purses.values() if _is_due(purse, now)]
        await asyncio.gather(*(self._look_after(purse, now) for purse in due))
        self._tell_shared()
        self._tell_batches()
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def _look_after(self, purse: Purse, now: float) -> None:
        try:
            if purse.is_in_use or (purse.is_open and now - purse.used_at < _IDLE_S):
                await purse.renew(now, headroom=self._headroom_calls * purse.step)
            elif purse.is_open:
                await purse.close(now)
            else:
                await purse.look(now)
        except Outage as error:
            self._log.info("account.unwritten", account=purse.key, error=str(error))

    def _tell_shared(self) -> None:
        """What there is to know of day and stage, to logs, probes and metrics."""
        now = self.now()
        trouble = next(iter(self.unpriced.values()), None)
        for purse in self._shared():
            kind, limit = _kind_and_name(purse)[0], purse.limit
            left = purse.account.left_usd(limit or _NOTHING)
            is_reached = self._note_reached(purse, now)
            self._metrics.budget(kind, None if limit is None else float(limit), float(left))
            self._metrics.budget_reached(kind, int(is_reached))
            if is_reached:
                trouble = reached_words(purse.key, purse.account, limit, purse.step, now)
        self._note_trouble(trouble)

    def _tell_batches(self) -> None:
        """Which ones are over their budget; forgets what is long out of use."""
        now, unaffordable = self.now(), self.circumstances.unaffordable
        shared = self._shared()
        for key, purse in list(self._purses.items()):
            if purse in shared:
                continue
            kind, name = _kind_and_name(purse)
            if kind == "batch":
                is_reached = self._note_reached(purse, now)
                (unaffordable.add if is_reached else unaffordable.discard)(name)
            kept_s = _UNAFFORDABLE_KEPT_S if key in self._reached else _KEPT_S
            if not (purse.is_open or purse.is_in_use) and now - purse.used_at > kept_s:
                del self._purses[key]
                self._reached.discard(key)
                unaffordable.discard(name)
        self._metrics.budget_reached("batch", len(unaffordable))

    def _note_reached(self, purse: Purse, now: float) -> bool:
        is_reached = purse.is_reached(purse.step, now)
        if is_reached and purse.key not in self._reached:
            words = reached_words(purse.key, purse.account, purse.limit, purse.step, now)
            self._log.error("budget.reached", account=purse.key, hint=words)
            self._reached.add(purse.key)
        elif not is_reached and purse.key in self._reached:
            self._log.info("budget.raised", account=purse.key)
            self._reached.discard(purse.key)
        return is_reached


def _is_due(purse: Purse, now: float) -> bool:
    every_s = _TICK_S * 0.9 if purse.is_open else _LOOK_S
    return bool(purse.waiting) or now - purse.looked_at >= every_s


def _kind_and_name(purse: Purse) -> tuple[str, str]:
    kind, _, name = purse.key.removeprefix(ACCOUNTS).partition(".")
    return kind, name


def _own_limit(account: Account) -> Decimal | None:
    return account.limit_usd
