"""The account of a budget: what was spent, and what each replica may still spend. Pure.

    left = limit − settled − uncertain − held

A replica holds a part of the money in its *share*, and pays its calls out of that without asking
anybody. Only it writes its share, always as absolute amounts: a write that is repeated counts
once. What a share holds covers every call that its replica may have under way; so nothing is spent
that the account has not set aside, whoever dies when.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from services.kernel.contracts.base import Contract, ExactUsd

SILENT_AFTER_S: Final = 15.0
"""A share that was not renewed for so long may be that of a dead replica: what it holds is shown
as uncertain. A replica that was only cut off goes on with it."""
FORGOTTEN_AFTER_S: Final = 3_600.0
"""After so long it is taken for dead, and what it held stays uncertain."""
_RENEWED_EVERY_S: Final = 5.0

_NOTHING: Final = Decimal(0)


class Share(Contract):
    """One replica's part: what it has spent in all, and what it holds for calls under way and next.

    `uncertain_usd`: the worst case of calls that may have been billed. `renewed_at`: seconds since
    the epoch.
    """

    settled_usd: ExactUsd = _NOTHING
    uncertain_usd: ExactUsd = _NOTHING
    held_usd: ExactUsd = _NOTHING
    renewed_at: float

    @property
    def total_usd(self) -> Decimal:
        """What its replica can have spent at most."""
        return self.settled_usd + self.uncertain_usd + self.held_usd


class Account(Contract):
    """One budget: of a batch, a day or a stage.

    `settled_usd` and `uncertain_usd` are those of shares that are closed; the properties add the
    open ones. `limit_usd` of a batch is its limit, of a day or stage the one that was in
    force at the last write. `is_limit_of_submit`: it came with submissions, whose next one adds to
    it. `dearest_usd`: the largest worst case of a call so far.
    """

    settled_usd: ExactUsd = _NOTHING
    uncertain_usd: ExactUsd = _NOTHING
    limit_usd: ExactUsd | None = None
    is_limit_of_submit: bool = False
    dearest_usd: ExactUsd = _NOTHING
    shares: Mapping[str, Share] = {}

    @property
    def all_settled_usd(self) -> Decimal:
        return sum((s.settled_usd for s in self.shares.values()), self.settled_usd)

    @property
    def total_usd(self) -> Decimal:
        """What can have been spent at most, calls under way and to come included."""
        closed = self.settled_usd + self.uncertain_usd
        return sum((s.total_usd for s in self.shares.values()), closed)

    def reserved_usd(self, now: float) -> Decimal:
        """What living replicas hold."""
        return sum((s.held_usd for s in self.shares.values() if not silent(s, now)), _NOTHING)

    def all_uncertain_usd(self, now: float) -> Decimal:
        """An upper bound of what was spent beside what is settled."""
        return self.total_usd - self.all_settled_usd - self.reserved_usd(now)

    def left_usd(self, limit: Decimal) -> Decimal:
        """What nobody has spent or set aside; below 0 when the limit was lowered."""
        return limit - self.total_usd

    def is_reached(self, limit: Decimal | None, worst: Decimal, now: float) -> bool:
        """Not even when all that is held came back would there be enough for one more call."""
        if limit is None:
            return False
        free = limit - self.all_settled_usd - self.all_uncertain_usd(now)
        return free <= 0 or free < worst


def silent(share: Share, now: float) -> bool:
    return now - share.renewed_at > SILENT_AFTER_S


@dataclass(frozen=True)
class Standing:
    """What one replica has spent since it opened its share, and what it needs.

    `reserved` covers its calls under way, `wanted` is for those to come. `step`: the worst case
    of one call. `is_waiting`: a call waits for money now.
    """

    settled: Decimal = _NOTHING
    uncertain: Decimal = _NOTHING
    reserved: Decimal = _NOTHING
    wanted: Decimal = _NOTHING
    step: Decimal = _NOTHING
    is_waiting: bool = False


def renewed(
    account: Account, name: str, mine: Standing, *, limit: Decimal | None, now: float
) -> Account:
    """The account with the share of `name` as it stands, and as much to hold as there is.

    Never more is held than the limit leaves, but for calls that are under way already. Unchanged
    when nothing would change but the time, and that not by much.
    """
    others = _without(account, name, now)
    spent = mine.settled + mine.uncertain
    free = None if limit is None else others.left_usd(limit) - spent - mine.reserved
    share = Share(
        settled_usd=mine.settled,
        uncertain_usd=mine.uncertain,
        held_usd=mine.reserved + _granted(mine, free),
        renewed_at=now,
    )
    before = account.shares.get(name)
    if before is not None and now - before.renewed_at < _RENEWED_EVERY_S:
        same = share.model_copy(update={"renewed_at": before.renewed_at})
        share = same if same == before else share
    update = {
        "shares": {**others.shares, name: share},
        "limit_usd": limit,
        "dearest_usd": max(account.dearest_usd, mine.step),
    }
    return others.model_copy(update=update)


def _granted(mine: Standing, free: Decimal | None) -> Decimal:
    """Of what is free at most the half, in whole calls, so that the others get something, too.

    The last call's worth goes to whoever has a call waiting.
    """
    if free is None or mine.wanted <= 0:
        return mine.wanted
    if free <= 0 or mine.step <= 0:
        return _NOTHING
    calls = free / 2 // mine.step or (1 if mine.is_waiting and free >= mine.step else 0)
    return min(mine.wanted, calls * mine.step)


def closed(account: Account, name: str, mine: Standing, *, now: float) -> Account:
    """The account without the share of `name`: what it held is free again. Twice is once."""
    if name not in account.shares:
        return account
    others = _without(account, name, now)
    update = {
        "settled_usd": others.settled_usd + mine.settled,
        "uncertain_usd": others.uncertain_usd + mine.uncertain + mine.reserved,
    }
    return others.model_copy(update=update)


def _without(account: Account, name: str, now: float) -> Account:
    """Without one share, and without those of replicas that are taken for dead."""
    shares = {other: share for other, share in account.shares.items() if other != name}
    dead = [other for other, s in shares.items() if now - s.renewed_at > FORGOTTEN_AFTER_S]
    gone = [shares.pop(other) for other in dead]
    update = {
        "shares": shares,
        "settled_usd": account.settled_usd + sum((s.settled_usd for s in gone), _NOTHING),
        "uncertain_usd": account.uncertain_usd
        + sum((s.uncertain_usd + s.held_usd for s in gone), _NOTHING),
    }
    return account.model_copy(update=update)
