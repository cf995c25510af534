"""Three questions refused in a row are no fault of theirs."""

from __future__ import annotations

from services.kernel.fleet.health.refusals import Refusals

NOW = 1_000.0


def refused(refusals: Refusals, *questions: str, now: float = NOW) -> Refusals:
    for question in questions:
        refusals = refusals.refused(question, now, now, "400", 0.0)
    return refusals


def is_shut(refusals: Refusals) -> bool:
    return refusals.circuit.open_until > 0


def test_two_questions_are_given_up_and_the_third_shuts_the_route() -> None:
    assert not is_shut(refused(Refusals(), "a", "b"))
    assert is_shut(refused(Refusals(), "a", "b", "c"))


def test_the_same_question_counts_once_however_often_it_is_refused() -> None:
    assert not is_shut(refused(Refusals(), "a", "a", "a", "b", "a"))


def test_an_answer_in_between_begins_anew() -> None:
    refusals = refused(Refusals(), "a", "b").answered(NOW, NOW)
    assert not is_shut(refused(refusals, "c", "d"))


def test_a_refused_probe_shuts_it_for_longer_and_an_answered_one_opens_it() -> None:
    refusals = refused(Refusals(), "a", "b", "c")
    assert refusals.circuit.open_until == NOW + 30
    again = refused(refusals, "d", now=NOW + 31)
    assert again.circuit.open_until == NOW + 31 + 60
    assert again.answered(NOW + 92, NOW + 93).questions == ()
    assert not is_shut(again.answered(NOW + 92, NOW + 93))


def test_calls_that_were_under_way_when_it_was_shut_change_nothing() -> None:
    refusals = refused(Refusals(), "a", "b", "c")
    assert refusals.refused("d", NOW - 1, NOW + 1, "400", 0.0) == refusals
    assert refusals.refused("d", NOW + 1, NOW + 2, "400", 0.0) == refusals
    assert refusals.answered(NOW - 1, NOW + 1) == refusals
