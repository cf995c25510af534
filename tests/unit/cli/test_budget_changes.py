"""Budgets as a person writes them, and what a recount makes of an account."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from services.cli.accounts.accounting import AttemptsKey
from services.cli.budgets.changing import Changes, read_changes
from services.cli.budgets.recounting import Sums, recounted, sums_of
from services.cli.submitting.affording import limit_after
from services.kernel.contracts.attempt import Attempt, AttemptHistory, Outcome
from services.kernel.errors import SettingsError
from services.kernel.fleet.money.limits import BudgetLimits
from services.kernel.fleet.money.spending import Account, Share
from services.kernel.fleet.money.words import usd

NIGHT = datetime(2026, 5, 4, 23, 59, tzinfo=UTC)
DEAREST = Decimal("0.002")


def test_limits_are_read_with_and_without_a_dollar_sign() -> None:
    changes = read_changes("$5", ["stage1=0.50"], ["monday=1e-3"], [])
    assert changes == Changes(
        (Decimal(5),), {"stage1": Decimal("0.5")}, {"monday": Decimal("0.001")}
    )


@pytest.mark.parametrize(
    "amount", ["0", "-1", "NaN", "Infinity", "1e99", "1e-9", "", "five", "5 €"]
)
def test_what_is_no_budget_is_refused_with_an_example(amount: str) -> None:
    with pytest.raises(SettingsError, match="such as 5"):
        read_changes(amount, [], [], [])
    with pytest.raises(SettingsError, match="such as 5"):
        read_changes(None, [], [f"monday={amount}"], [])


@pytest.mark.parametrize(
    ("stages", "batches", "unset", "said"),
    [
        (["stage1"], [], [], "stage1=5"),
        (["exporter=1"], [], [], "stage1 and stage2"),
        ([], ["bad name=1"], [], "no batch name"),
        ([], [], ["week"], "stage1 and stage2"),
        ([], [], ["batch=a.b"], "no batch name"),
    ],
)
def test_names_that_there_are_not_are_refused(
    stages: list[str], batches: list[str], unset: list[str], said: str
) -> None:
    with pytest.raises(SettingsError, match=said):
        read_changes(None, stages, batches, unset)


def test_what_is_unset_is_gone_and_the_rest_stays() -> None:
    before = BudgetLimits(day_usd=Decimal(5), stages={"stage1": Decimal(1), "stage2": Decimal(2)})
    after = read_changes(None, [], [], ["day", "stage1"]).applied(before)
    assert after == BudgetLimits(day_usd=None, stages={"stage2": Decimal(2)})
    assert read_changes(None, ["stage1=3"], [], []).applied(before).day_usd == 5
    assert not read_changes(None, [], [], [])


@pytest.mark.parametrize(
    ("amount", "shown"),
    [
        ("0", "$0.00"),
        ("5", "$5.00"),
        ("0.5", "$0.50"),
        ("0.0012345", "$0.001234"),
        ("1234", "$1,234.00"),
    ],
)
def test_money_is_shown_in_cents_at_least(amount: str, shown: str) -> None:
    assert usd(Decimal(amount)) == shown


def attempt(outcome: Outcome, cost: str = "0", generation: str | None = None) -> Attempt:
    return Attempt(
        outcome=outcome,
        cost_usd=Decimal(cost),
        generation_id=generation,
        fingerprint="f",
        started_at=NIGHT,
    )


def test_sums_are_by_day_stage_and_batch_and_count_what_nobody_knows() -> None:
    paid = AttemptHistory(attempts=(attempt("billed", "0.003", "g1"), attempt("started")))
    doubtful = AttemptHistory(attempts=(attempt("uncertain", "0.001", "g2"), attempt("unbilled")))
    sums = sums_of(
        {
            AttemptsKey("stage1", "b1", "t1"): paid,
            AttemptsKey("stage2", "b1", "t1"): doubtful,
            AttemptsKey("ingest", "b1", "t1"): paid,
        }
    )
    assert sums["day", "2026-05-04"] == Sums(Decimal("0.004"), 1)
    assert sums["stage", "stage1"] == Sums(Decimal("0.003"), 1)
    assert sums["batch", "b1"] == Sums(Decimal("0.004"), 1)
    assert ("stage", "ingest") not in sums


def test_a_recount_lets_go_of_what_a_dead_replica_held_but_for_calls_nobody_saw_the_end_of() -> (
    None
):
    dead = Share(settled_usd=Decimal("0.005"), held_usd=Decimal("0.064"), renewed_at=0)
    before = Account(settled_usd=Decimal("0.010"), dearest_usd=DEAREST, shares={"s": dead})
    after = recounted(Sums(Decimal("0.017"), 2))(before)
    assert (after.settled_usd, after.uncertain_usd) == (Decimal("0.017"), 2 * DEAREST)
    assert after.shares == {}
    assert recounted(Sums(Decimal("0.017"), 2))(after) == after


def test_a_recount_never_counts_less_than_was_settled_nor_more_than_was_set_aside() -> None:
    before = Account(settled_usd=Decimal("0.010"), uncertain_usd=DEAREST, dearest_usd=DEAREST)
    after = recounted(Sums(Decimal("0.003"), 50))(before)
    assert (after.settled_usd, after.uncertain_usd) == (Decimal("0.010"), DEAREST)


def test_the_first_bound_is_on_top_of_what_the_batch_has_cost_and_the_next_adds() -> None:
    spent = Account(settled_usd=Decimal("0.25"))
    assert limit_after(spent, Decimal(1)) == Decimal("1.25")
    bounded = spent.model_copy(update={"limit_usd": Decimal("1.25")})
    assert limit_after(bounded, Decimal(1)) == Decimal("2.25")
