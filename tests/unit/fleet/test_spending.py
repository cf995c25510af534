"""The arithmetic of accounts: never over the limit, never under what was spent."""

from __future__ import annotations

from decimal import Decimal

import pytest

from services.kernel.fleet.money.spending import (
    FORGOTTEN_AFTER_S,
    SILENT_AFTER_S,
    Account,
    Share,
    Standing,
    closed,
    renewed,
)

STEP = Decimal("0.002")
CENT = Decimal("0.01")


def standing(**amounts: str | bool) -> Standing:
    money = {k: v if isinstance(v, bool) else Decimal(v) for k, v in amounts.items()}
    return Standing(**{"step": STEP, **money})  # type: ignore[arg-type]


def test_money_crosses_the_wire_to_the_last_digit() -> None:
    tiny = Decimal("0.000000000000123456789")
    account = Account(settled_usd=CENT + tiny, shares={"a": Share(held_usd=tiny, renewed_at=1.5)})
    assert Account.from_bytes(account.to_bytes()) == account
    assert b'"0.010000000000123456789"' in account.to_bytes()


def test_who_is_alone_gets_half_of_what_is_free_in_whole_calls() -> None:
    account = renewed(Account(), "a", standing(wanted="1"), limit=CENT, now=0)
    assert account.shares["a"].held_usd == 2 * STEP
    second = renewed(account, "b", standing(wanted="1"), limit=CENT, now=0)
    assert second.shares["b"].held_usd == STEP
    assert second.left_usd(CENT) == 2 * STEP


@pytest.mark.parametrize(("is_waiting", "held"), [(True, STEP), (False, Decimal(0))])
def test_the_last_call_is_for_whoever_waits(is_waiting: bool, held: Decimal) -> None:
    mine = standing(wanted="0.002", is_waiting=is_waiting)
    account = renewed(Account(), "a", mine, limit=STEP, now=0)
    assert account.shares["a"].held_usd == held


def test_without_a_limit_everybody_gets_what_they_want() -> None:
    account = renewed(Account(), "a", standing(wanted="0.064"), limit=None, now=0)
    assert account.shares["a"].held_usd == Decimal("0.064")


def test_a_limit_below_what_is_spent_leaves_nothing_but_calls_under_way() -> None:
    mine = standing(settled="0.02", reserved="0.004", wanted="0.064", is_waiting=True)
    account = renewed(Account(), "a", mine, limit=CENT, now=0)
    assert account.shares["a"].held_usd == 2 * STEP
    assert account.left_usd(CENT) == Decimal("-0.014")
    assert account.is_reached(CENT, STEP, 0)


def test_nothing_is_written_when_only_time_has_passed_and_not_much_of_it() -> None:
    mine = standing(settled="0.002", wanted="0.004")
    before = renewed(Account(), "a", mine, limit=CENT, now=0)
    assert renewed(before, "a", mine, limit=CENT, now=4) == before
    assert renewed(before, "a", mine, limit=CENT, now=6).shares["a"].renewed_at == 6


def test_closing_gives_back_what_is_held_and_twice_is_once() -> None:
    mine = standing(settled="0.003", uncertain="0.002")
    before = renewed(Account(), "a", standing(settled="0.003", wanted="0.004"), limit=CENT, now=0)
    once = closed(before, "a", mine, now=1)
    assert (once.settled_usd, once.uncertain_usd, once.shares) == (
        Decimal("0.003"),
        Decimal("0.002"),
        {},
    )
    assert closed(once, "a", mine, now=2) == once


def test_what_a_silent_replica_holds_is_uncertain_and_its_own_again_when_it_returns() -> None:
    mine = standing(reserved="0.004")
    account = renewed(Account(), "a", mine, limit=CENT, now=0)
    assert (account.reserved_usd(1), account.all_uncertain_usd(1)) == (2 * STEP, 0)
    later = SILENT_AFTER_S + 1
    assert (account.reserved_usd(later), account.all_uncertain_usd(later)) == (0, 2 * STEP)
    assert not account.is_reached(CENT, 4 * STEP, 1), "the calls under way may cost less"
    assert account.is_reached(CENT, 4 * STEP, later)
    settled = renewed(account, "a", standing(settled="0.001"), limit=CENT, now=later)
    assert settled.total_usd == settled.all_settled_usd == Decimal("0.001")


def test_who_is_silent_for_very_long_is_dead_and_what_it_held_stays_uncertain() -> None:
    account = renewed(
        Account(), "a", standing(settled="0.001", reserved="0.004"), limit=CENT, now=0
    )
    now = FORGOTTEN_AFTER_S + 1
    after = renewed(account, "b", standing(wanted="0.002"), limit=CENT, now=now)
    assert list(after.shares) == ["b"]
    assert (after.settled_usd, after.uncertain_usd) == (Decimal("0.001"), 2 * STEP)
    assert after.left_usd(CENT) == Decimal("0.003")
