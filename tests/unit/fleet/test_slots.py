"""Sharing slots: nothing is wasted, nobody gets what it does not want, nobody starves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.kernel.fleet.pace.slots import fair_shares

wishes = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 40), min_size=1)


@given(limit=st.integers(1, 60), wanted=wishes, now_s=st.floats(0, 1e9))
def test_shares_use_the_limit_and_never_pass_it(
    limit: int, wanted: dict[str, int], now_s: float
) -> None:
    shares = fair_shares(limit, wanted, now_s)
    assert sum(shares.values()) == min(limit, sum(wanted.values()))
    assert all(0 <= shares[name] <= wanted[name] for name in wanted)


@given(limit=st.integers(1, 60), wanted=wishes, now_s=st.floats(0, 1e9))
def test_who_gets_less_than_it_wants_gets_as_much_as_any_other(
    limit: int, wanted: dict[str, int], now_s: float
) -> None:
    shares = fair_shares(limit, wanted, now_s)
    most = max(shares.values())
    assert all(shares[name] >= most - 1 for name in wanted if shares[name] < wanted[name])


@pytest.mark.parametrize(("limit", "replicas"), [(1, 3), (2, 4), (7, 4)])
def test_what_can_not_be_divided_goes_round(limit: int, replicas: int) -> None:
    wanted = {f"replica-{number}": 50 for number in range(replicas)}
    totals = dict.fromkeys(wanted, 0)
    for round_ in range(200):
        for name, share in fair_shares(limit, wanted, round_ * 10.0).items():
            totals[name] += share
    even = 200 * limit / replicas
    assert all(total == pytest.approx(even, rel=0.25) for total in totals.values())
