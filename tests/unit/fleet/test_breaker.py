"""When failures open the breaker, and what closes it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.kernel.fleet.health.breaker import Breaker, BreakerRules

RULES = BreakerRules()
NOW = 1_000.0


def failing(breaker: Breaker, times: int, *, now: float = NOW, began_at: float = NOW) -> Breaker:
    for _ in range(times):
        breaker = breaker.failure(began_at, now, "502", 0.0, RULES)
    return breaker


def answering(breaker: Breaker, calls: int, *, now: float = NOW, began_at: float = NOW) -> Breaker:
    return breaker.answered(calls, began_at, now, RULES)


def is_open(breaker: Breaker, now: float = NOW) -> bool:
    return breaker.circuit.state(now) == "open"


def test_it_opens_on_the_eighth_failure_in_a_row() -> None:
    assert not is_open(failing(Breaker(), 7))
    opened = failing(Breaker(), 8)
    assert is_open(opened)
    assert opened.circuit.reason == "502"


def test_an_answer_in_between_begins_the_row_anew() -> None:
    breaker = failing(Breaker(), 7)
    breaker = failing(answering(breaker, 1), 7)
    assert not is_open(breaker)


def test_an_answer_to_what_was_under_way_before_leaves_the_suspicion() -> None:
    breaker = failing(Breaker(), 4, began_at=NOW)
    assert answering(breaker, 1, began_at=NOW - 1).suspect == 4
    assert answering(breaker, 1, began_at=NOW - 1).in_a_row == 0
    assert answering(breaker, 1, began_at=NOW + 1).suspect == 0


def test_it_opens_when_half_of_twenty_calls_within_the_window_failed() -> None:
    breaker = Breaker()
    for _ in range(9):
        breaker = answering(failing(breaker, 1), 1)
    assert not is_open(breaker)  # 9 of 18
    assert not is_open(failing(breaker, 1))  # 10 of 19
    assert is_open(failing(breaker, 2))  # 11 of 20


def test_failures_of_long_ago_do_not_count_for_the_share() -> None:
    breaker = Breaker()
    for _ in range(9):
        breaker = answering(failing(breaker, 1), 1)
    later = NOW + RULES.window_s + 1
    assert not is_open(failing(breaker, 2, now=later, began_at=later), later)


def test_a_tenth_of_failures_never_opens_it() -> None:
    breaker = Breaker()
    for second in range(300):
        now = NOW + second
        breaker = answering(failing(breaker, 1, now=now, began_at=now), 9, now=now, began_at=now)
        assert not breaker.circuit.open_until


def test_an_answered_probe_closes_it_and_forgets_the_failures() -> None:
    breaker = failing(Breaker(), 8)
    closed = answering(breaker, 1, now=NOW + 6, began_at=NOW + 5.5)
    assert closed.circuit.state(NOW + 6) == "closed"
    assert not is_open(failing(closed, 7, now=NOW + 7, began_at=NOW + 7), NOW + 7)


def test_one_failed_probe_opens_it_again_for_twice_as_long() -> None:
    again = failing(failing(Breaker(), 8), 1, now=NOW + 6, began_at=NOW + 5.5)
    assert again.circuit.open_until == NOW + 16


def test_calls_from_before_the_opening_neither_close_it_nor_open_it_again() -> None:
    breaker = failing(Breaker(), 8, now=NOW + 10)
    assert answering(breaker, 1, now=NOW + 16, began_at=NOW + 9) == breaker
    assert failing(breaker, 1, now=NOW + 16, began_at=NOW + 9) == breaker


def test_failures_of_who_did_not_know_that_it_is_open_do_not_lengthen_the_opening() -> None:
    breaker = failing(Breaker(), 8)
    assert failing(breaker, 20, now=NOW + 0.2, began_at=NOW + 0.1) == breaker


def test_calls_that_hung_while_it_was_down_do_not_open_it_after_it_is_back() -> None:
    closed = answering(failing(Breaker(), 8), 1, now=NOW + 6, began_at=NOW + 5.5)
    assert not is_open(failing(closed, 50, now=NOW + 120, began_at=NOW - 1), NOW + 120)


@given(
    events=st.lists(
        st.tuples(st.sampled_from(["answered", "failed"]), st.floats(0, 20), st.floats(0, 40)),
        max_size=80,
    )
)
def test_whatever_happens_an_open_breaker_opens_for_a_probe_within_its_longest_time(
    events: list[tuple[str, float, float]],
) -> None:
    breaker, now = Breaker(), NOW
    for kind, pause_s, age_s in events:
        now += pause_s
        if kind == "failed":
            breaker = failing(breaker, 1, now=now, began_at=now - age_s)
        else:
            breaker = answering(breaker, 1, now=now, began_at=now - age_s)
        assert breaker.circuit.open_until <= now + RULES.longest_s
        assert breaker.circuit.state(now + RULES.longest_s) != "open"
        assert Breaker.model_validate_json(breaker.to_bytes()) == breaker
