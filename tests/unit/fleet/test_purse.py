"""Many replicas on one account, any of them dying, any write unanswered: the account covers all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_bucket import MemoryBucket

from services.kernel.errors import Outage
from services.kernel.fleet.money.purse import Purse
from services.kernel.fleet.money.spending import FORGOTTEN_AFTER_S, Account

KEY = "spend.day.2026-05-04"
STEP = Decimal("0.002")


def own_limit(account: Account) -> Decimal | None:
    return account.limit_usd


@dataclass
class Provider:
    """What was charged in truth, and the calls that it may still charge."""

    charged: Decimal = Decimal(0)
    open: int = 0


@dataclass
class Replica:
    """A purse, and the calls that are paid out of it: (epoch, worst case)."""

    purse: Purse
    calls: list[tuple[int, Decimal]] = field(default_factory=list)


class Fleet:
    """Replicas that come and go on one limited account."""

    def __init__(self, random: Random, limit: Decimal) -> None:
        self.random = random
        self.limit = limit
        self.bucket = MemoryBucket()
        self.now = 1_000.0
        self.provider = Provider()
        self.replicas: list[Replica] = []
        self.lost: list[tuple[int, Decimal]] = []
        self.started = 0
        self.has_died = False
        self.taken = 0

    def start(self) -> None:
        self.started += 1
        record = self.bucket.record(KEY)
        purse = Purse(KEY, record, f"replica-{self.started}", lambda _account: self.limit)
        self.replicas.append(Replica(purse))

    def call(self, replica: Replica) -> None:
        if not replica.purse.can_take(STEP):
            replica.purse.waiting["call"] = STEP
            return
        replica.purse.waiting.clear()
        replica.calls.append((replica.purse.take(STEP, self.now), STEP))
        self.provider.open += 1
        self.taken += 1

    def answer(self, replica: Replica) -> None:
        """Billed up to the worst case, cut off after it was billed or before, or turned away."""
        if not replica.calls:
            return
        epoch, worst = replica.calls.pop()
        self.provider.open -= 1
        cost = STEP * self.random.randrange(5) / 4
        is_known = self.random.random() < 0.8
        self.provider.charged += cost if is_known or self.random.random() < 0.5 else 0
        replica.purse.release(
            epoch,
            worst,
            settled=cost if is_known else Decimal(0),
            uncertain=Decimal(0) if is_known else worst,
            now=self.now,
        )

    def die(self, replica: Replica) -> None:
        """Its calls go on at the provider, which charges them."""
        self.has_died = True
        self.replicas.remove(replica)
        self.provider.charged += len(replica.calls) * STEP
        self.provider.open -= len(replica.calls)

    async def write(self, replica: Replica) -> None:
        fault = self.random.choice([None, None, "lost", "unanswered"])
        self.bucket.faults.append(fault)
        self.now += self.random.choice([0.1, 1.0, 20.0])
        try:
            if replica.calls or self.random.random() < 0.7:
                await replica.purse.renew(self.now, headroom=self.random.randrange(6) * STEP)
            else:
                await replica.purse.close(self.now)
            self.bucket.deaf_for = self.random.choice([0, 0, 1, 3])
        except Outage:
            return

    async def write_all_at_once(self) -> None:
        """With calls and answers in between, while writes are under way."""
        await asyncio.gather(
            *(self.write(replica) for replica in self.replicas), self.go_on_meanwhile()
        )

    async def go_on_meanwhile(self) -> None:
        for _ in range(6):
            await asyncio.sleep(0)
            for _ in range(3):
                self.act_once(may_die=False)
                self.check()

    def act_once(self, *, may_die: bool = True) -> None:
        if not self.replicas:
            return
        replica = self.random.choice(self.replicas)
        acts: list[Callable[[Replica], None]] = [self.call, self.call, self.answer]
        if may_die and self.random.random() < 0.03:
            acts = [self.die]
        self.random.choice(acts)(replica)

    def check(self) -> None:
        account = self.bucket.account(KEY)
        assert account.total_usd <= self.limit
        possible = self.provider.charged + self.provider.open * STEP
        assert possible <= account.total_usd, "spent what the account does not cover"


async def live(seed: int, steps: int) -> Fleet:
    random = Random(seed)
    fleet = Fleet(random, STEP * random.randrange(0, 20))
    for _ in range(steps):
        if len(fleet.replicas) < 3 and random.random() < 0.4:
            fleet.start()
        for _ in range(4):
            fleet.act_once()
            fleet.check()
        if random.random() < 0.3:
            fleet.limit += STEP * random.randrange(8)
        if random.random() < 0.02:
            fleet.now += FORGOTTEN_AFTER_S + 1
        await fleet.write_all_at_once()
        fleet.check()
    return fleet


@given(seed=st.integers(0, 2**32))
@settings(max_examples=80, deadline=None, derandomize=True)
def test_the_account_covers_whatever_happens_and_never_passes_its_limit(seed: int) -> None:
    fleet = asyncio.run(live(seed, steps=25))
    asyncio.run(end_in_order(fleet))


def test_the_histories_are_no_idle_ones() -> None:
    assert asyncio.run(live(seed=1, steps=25)).taken > 20


async def end_in_order(fleet: Fleet) -> None:
    fleet.bucket.faults.clear()
    fleet.bucket.deaf_for = 0
    for replica in fleet.replicas:
        while replica.calls:
            fleet.answer(replica)
        await replica.purse.close(fleet.now)
        fleet.check()
    account = fleet.bucket.account(KEY)
    assert fleet.has_died or not account.shares, "nobody holds anything at the end"


async def test_what_is_settled_is_exact_when_nobody_dies_though_writes_go_unanswered() -> None:
    bucket, now = MemoryBucket(), 0.0
    purses = [Purse(KEY, bucket.record(KEY), f"r{n}", own_limit) for n in range(3)]
    spent = Decimal(0)
    for round_ in range(60):
        for number, purse in enumerate(purses):
            bucket.faults.append(("unanswered", "lost", None)[(round_ + number) % 3])
            now += 0.5
            if round_ % 7 == 6:
                await purse.close(now)
                continue
            await purse.renew(now, headroom=2 * STEP)
            epoch = purse.take(STEP, now)
            cost = Decimal(f"0.00{number}{round_:02}1")
            spent += cost
            purse.release(epoch, STEP, settled=cost, uncertain=Decimal(0), now=now)
    bucket.faults.clear()
    for purse in purses:
        await purse.close(now)
    account = bucket.account(KEY)
    assert (account.settled_usd, account.uncertain_usd, account.shares) == (spent, 0, {})


async def test_a_call_of_a_replica_that_was_taken_for_dead_is_counted_once() -> None:
    bucket = MemoryBucket()
    frozen = Purse(KEY, bucket.record(KEY), "frozen", own_limit)
    await frozen.renew(0.0, headroom=STEP)
    epoch = frozen.take(STEP, 0.0)
    other = Purse(KEY, bucket.record(KEY), "other", own_limit)
    await other.renew(FORGOTTEN_AFTER_S + 1, headroom=STEP)
    assert bucket.account(KEY).uncertain_usd == STEP
    await frozen.renew(FORGOTTEN_AFTER_S + 2, headroom=STEP)
    frozen.release(epoch, STEP, settled=STEP, uncertain=Decimal(0), now=FORGOTTEN_AFTER_S + 3)
    await frozen.close(FORGOTTEN_AFTER_S + 3)
    account = bucket.account(KEY)
    assert (account.settled_usd, account.uncertain_usd) == (0, STEP)


async def test_nothing_can_be_taken_while_a_purse_is_closed() -> None:
    bucket = MemoryBucket()
    purse = Purse(KEY, bucket.record(KEY), "r", own_limit)
    await purse.renew(0.0, headroom=STEP)
    assert purse.can_take(STEP)
    closing = asyncio.create_task(purse.close(1.0))
    await asyncio.sleep(0)
    assert not purse.can_take(STEP)
    assert not purse.can_take(Decimal(0))
    await closing
    assert not purse.can_take(STEP)


async def test_without_the_bucket_nothing_is_taken() -> None:
    bucket = MemoryBucket(is_away=True)
    purse = Purse(KEY, bucket.record(KEY), "r", own_limit)
    with pytest.raises(Outage):
        await purse.renew(0.0, headroom=STEP)
    assert not purse.can_take(STEP)
    assert not purse.can_take(Decimal(0))
