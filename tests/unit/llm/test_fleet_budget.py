"""Reserving money: what waits, what is refused, what goes on by itself, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal

import pytest
from asking_fakes import access
from fleet.memory_bucket import MemoryBucket
from model.virtual_time import VirtualLoop

from services.kernel.circumstances import Circumstances
from services.kernel.contracts.base import Batch
from services.kernel.errors import BatchCancelled, BudgetReached
from services.kernel.fleet.money.limits import BudgetLimits
from services.kernel.fleet.money.purses import Bounds, Purses
from services.kernel.llm.fleet_budget import FleetBudget
from services.kernel.llm.prices import Prices, WorstCase
from services.kernel.llm.prompt import Inquiry, Prompt
from services.kernel.metrics import Metrics
from services.kernel.model_settings import ModelPrice

WORST = Decimal("0.002")
B1, B2 = Batch("b1"), Batch("b2")
DAY, STAGE, BATCH = "spend.day.1970-01-01", "spend.stage.stage1", "spend.batch.b1"
PROMPT = Prompt("analysis", "1", "You write JSON.", "Analyse.", {}, {"term": "책"})
INQUIRY = Inquiry(PROMPT, access(), 2_048, 0.3)


class FixedWorstCase(WorstCase):
    def __init__(self) -> None:
        super().__init__(Prices({}), [access()])
        self.usd: Decimal | None = WORST

    def __call__(self, inquiry: Inquiry) -> Decimal | None:
        return self.usd


@dataclass
class Shared:
    """What all replicas share."""

    loop: VirtualLoop
    bucket: MemoryBucket = field(default_factory=MemoryBucket)
    limits: BudgetLimits = field(default_factory=BudgetLimits)
    offset_s: float = 0.0

    def now(self) -> float:
        return self.loop.time() + self.offset_s

    def limit_batch(self, usd: str | None) -> None:
        limit = None if usd is None else Decimal(usd)
        change = self.bucket.record(BATCH).change(
            lambda account: account.model_copy(update={"limit_usd": limit})
        )
        self.loop.finish(change)

    def limit_day(self, usd: str) -> None:
        self.limits = BudgetLimits(day_usd=Decimal(usd))


class Stage1:
    """One replica, and what it is seen to do."""

    def __init__(self, shared: Shared, name: str = "r1", bounds: Bounds | None = None) -> None:
        self.loop = shared.loop
        self.circumstances = Circumstances()
        self.troubles: list[str | None] = []
        self.metrics = Metrics("stage1")
        self.worst_case = FixedWorstCase()
        self.purses = Purses(
            shared.bucket.record,
            lambda: shared.limits,
            bounds or Bounds(),
            stage="stage1",
            name=name,
            concurrency=2,
            now=shared.now,
            metrics=self.metrics,
            circumstances=self.circumstances,
            note_trouble=self.troubles.append,
        )
        self.budget = FleetBudget(self.purses, self.worst_case)
        self.running = shared.loop.create_task(self.purses.run())
        self.paid: list[Batch] = []

    async def call(
        self, batch: Batch = B1, cost: str | None = "0.002", *, lasts_s: float = 1.0
    ) -> None:
        """`cost` of None: it is cut off."""
        async with self.budget.reserve(INQUIRY, batch) as reservation:
            reservation.keep()
            await asyncio.sleep(lasts_s)
            if cost is not None:
                reservation.settle(Decimal(cost))
                self.paid.append(batch)

    def begin(self, *calls: Awaitable[None]) -> list[asyncio.Task[None]]:
        return [self.loop.create_task(call) for call in calls]  # type: ignore[arg-type]

    def sample(self, name: str, account: str) -> float | None:
        labels = {"service": "stage1", "account": account}
        return self.metrics.registry.get_sample_value(name, labels)

    def end(self) -> None:
        self.running.cancel()
        self.loop.finish(self.purses.close())


@pytest.fixture
def shared() -> Iterator[Shared]:
    loop = VirtualLoop()
    asyncio.set_event_loop(loop)
    yield Shared(loop)
    loop.shut()
    asyncio.set_event_loop(None)


def settled(shared: Shared, key: str) -> tuple[Decimal, Decimal]:
    account = shared.bucket.account(key)
    return account.all_settled_usd, account.total_usd


def test_a_call_is_counted_by_day_stage_and_batch_and_an_idle_replica_holds_nothing(
    shared: Shared,
) -> None:
    stage = Stage1(shared)
    shared.loop.finish(stage.call(cost="0.0012345"))
    shared.loop.run_for(1.6)
    for key in (DAY, STAGE, BATCH):
        assert settled(shared, key) == (Decimal("0.0012345"), Decimal("0.0012345"))


def test_a_call_that_was_cut_off_counts_as_its_worst_case(shared: Shared) -> None:
    stage = Stage1(shared)
    shared.loop.finish(stage.call(cost=None))
    stage.end()
    account = shared.bucket.account(DAY)
    assert (account.settled_usd, account.uncertain_usd) == (0, WORST)


def test_many_calls_take_few_writes(shared: Shared) -> None:
    stage = Stage1(shared)

    async def work() -> None:
        for _ in range(500):
            await stage.call(cost="0.0001", lasts_s=0.02)

    shared.loop.finish(work())
    stage.end()
    assert settled(shared, DAY)[1] == Decimal("0.05")
    assert shared.bucket.writes < 3 * 10 * 4, "three accounts, ten seconds, some four a second"


def test_when_the_day_is_used_up_calls_wait_and_go_on_at_once_when_it_is_raised(
    shared: Shared,
) -> None:
    shared.limit_day("0.005")
    stage = Stage1(shared)
    calls = stage.begin(*(stage.call() for _ in range(4)))
    shared.loop.run_for(60)
    assert len(stage.paid) == 2
    assert "budget of day 1970-01-01 is used up" in str(stage.troubles[-1])
    assert "cardflow budget --day" in str(stage.troubles[-1])
    assert stage.sample("cardflow_budget_reached", "day") == 1
    assert stage.sample("cardflow_budget_left_usd", "day") == pytest.approx(0.001)
    shared.limit_day("1")
    stage.purses.look_again()
    shared.loop.run_for(1.1)
    assert all(call.done() for call in calls)
    shared.loop.run_for(10)
    assert stage.troubles[-1] is None
    assert stage.sample("cardflow_budget_reached", "day") == 0


def test_a_day_that_is_over_lets_calls_go_on(shared: Shared) -> None:
    shared.limit_day("0.002")
    shared.offset_s = 86_400 - 90
    stage = Stage1(shared)
    stage.begin(stage.call(), stage.call())
    shared.loop.run_for(80)
    assert len(stage.paid) == 1
    shared.loop.run_for(20)
    assert len(stage.paid) == 2
    assert settled(shared, DAY)[1] == settled(shared, "spend.day.1970-01-02")[1] == WORST


def test_a_used_up_budget_is_told_once_also_by_who_makes_no_calls(
    shared: Shared, capsys: pytest.CaptureFixture[str]
) -> None:
    shared.limit_day("0.002")
    spender, idle = Stage1(shared, "r1"), Stage1(shared, "r2")
    shared.loop.finish(spender.call())
    shared.loop.run_for(60)
    assert capsys.readouterr().out.count("budget.reached") == 2
    assert idle.sample("cardflow_budget_reached", "day") == 1


def test_a_batch_over_its_budget_is_refused_and_others_go_on(shared: Shared) -> None:
    shared.limit_batch("0.003")
    stage = Stage1(shared)
    shared.loop.finish(stage.call(B1))
    shared.loop.run_for(1)
    with pytest.raises(BudgetReached, match="--batch b1=USD"):
        shared.loop.finish(stage.call(B1))
    assert stage.circumstances.unaffordable == {"b1"}
    shared.loop.finish(stage.call(B2))
    shared.loop.run_for(1)
    assert stage.troubles[-1] is None, "the stage itself is ready"
    assert stage.sample("cardflow_budget_reached", "batch") == 1
    shared.limit_batch("0.010")
    shared.loop.run_for(6)
    assert stage.circumstances.unaffordable == set()
    shared.loop.finish(stage.call(B1))


def test_a_batch_that_never_comes_back_is_forgotten(shared: Shared) -> None:
    shared.limit_batch("0.001")
    stage = Stage1(shared)
    with pytest.raises(BudgetReached):
        shared.loop.finish(stage.call(B1))
    shared.loop.run_for(400)
    assert stage.circumstances.unaffordable == set()


def test_replicas_share_a_budget_to_the_last_call(shared: Shared) -> None:
    shared.limit_day("0.041")
    stages = [Stage1(shared, name=f"r{n}") for n in range(4)]
    for stage in stages:
        stage.begin(*(stage.call(cost="0.001", lasts_s=0.3) for _ in range(20)))
    shared.loop.run_for(120)
    assert settled(shared, DAY) == (Decimal("0.040"), Decimal("0.040"))
    assert sum(len(stage.paid) for stage in stages) == 40
    assert all(stage.sample("cardflow_budget_reached", "day") == 1 for stage in stages)


def test_two_that_need_the_same_two_budgets_do_not_wait_for_each_other(shared: Shared) -> None:
    shared.limit_day("0.002")
    shared.limit_batch("0.002")
    stages = [Stage1(shared, name=f"r{n}") for n in range(2)]
    for stage in stages:
        stage.begin(stage.call())
    shared.loop.run_for(30)
    assert sum(len(stage.paid) for stage in stages) == 1


def test_a_stop_and_a_cancellation_end_the_waiting(shared: Shared) -> None:
    shared.limit_day("0.001")
    stage = Stage1(shared)
    [stopped] = stage.begin(stage.call())
    shared.loop.run_for(5)
    stage.circumstances.is_stopping = True
    shared.loop.run_for(1)
    with pytest.raises(BudgetReached, match="stopped"):
        stopped.result()
    stage.circumstances.is_stopping = False
    [cancelled] = stage.begin(stage.call())
    shared.loop.run_for(5)
    stage.circumstances.cancelled = {"b1"}
    shared.loop.run_for(1)
    with pytest.raises(BatchCancelled):
        cancelled.result()


def test_without_a_price_a_budget_lets_nothing_be_spent_and_says_what_to_do(
    shared: Shared,
) -> None:
    stage = Stage1(shared, bounds=Bounds(stage=Decimal(1)))
    stage.worst_case.usd = None
    stage.begin(stage.call())
    shared.loop.run_for(30)
    assert stage.paid == []
    assert "CARDFLOW_PRICES" in str(stage.troubles[-1])
    stage.worst_case.usd = WORST
    shared.loop.run_for(5)
    assert stage.paid == [B1]


def test_without_price_and_budget_calls_are_made_and_counted(shared: Shared) -> None:
    stage = Stage1(shared)
    stage.worst_case.usd = None
    shared.loop.finish(stage.call(cost="0.5"))
    stage.end()
    assert settled(shared, DAY)[0] == Decimal("0.5")
    shared.limit_batch("0.6")
    stage = Stage1(shared, name="r2")
    stage.worst_case.usd = None
    with pytest.raises(BudgetReached, match="CARDFLOW_PRICES"):
        shared.loop.finish(stage.call())


def test_calls_wait_while_the_accounts_are_away_and_nothing_is_lost(shared: Shared) -> None:
    stage = Stage1(shared)
    shared.bucket.is_away = True
    [waiting] = stage.begin(stage.call())
    shared.loop.run_for(30)
    assert not waiting.done()
    shared.bucket.is_away = False
    shared.loop.run_for(3)
    assert stage.paid == [B1]


def test_a_bill_over_the_worst_case_is_counted_as_it_is(shared: Shared) -> None:
    prices = Prices({"test/model": ModelPrice(prompt_usd=Decimal(1), completion_usd=Decimal(1))})
    worst_case = WorstCase(prices, [access()])
    before = worst_case(INQUIRY)
    assert before is not None
    worst_case.note_bill(INQUIRY, before, 2 * before)
    assert worst_case(INQUIRY) == 2 * before
    stage = Stage1(shared)
    shared.loop.finish(stage.call(cost="0.004"))
    stage.end()
    assert settled(shared, DAY) == (2 * WORST, 2 * WORST)


def test_a_call_that_is_cancelled_before_it_was_sent_gives_its_money_back(shared: Shared) -> None:
    stage = Stage1(shared)
    entered: list[Callable[[], None]] = []

    async def reserve_only() -> None:
        async with stage.budget.reserve(INQUIRY, B1) as reservation:
            entered.append(reservation.keep)
            await asyncio.sleep(3_600)

    [task] = stage.begin(reserve_only())
    shared.loop.run_for(2)
    task.cancel()
    with suppress(asyncio.CancelledError):
        shared.loop.finish(asyncio.wait_for(task, 1))
    stage.end()
    assert entered
    assert settled(shared, DAY) == (0, 0)
