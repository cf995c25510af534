"""How far two analyses agree: field by field."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from term_samples import analyzed

from services.kernel.contracts.analysis import Analysis
from services.stage1.agreement import FIELDS, agreement


def analysis(**values: Any) -> Analysis:
    return analyzed(**values).analysis


def measure(field: str, one: dict[str, Any], other: dict[str, Any]) -> float:
    return round(agreement(analysis(**one), analysis(**other))[field], 2)


def test_an_analysis_agrees_with_itself() -> None:
    assert agreement(analysis(), analysis()) == dict.fromkeys(FIELDS, 1.0)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("[tɕʰɛk̚]", "[tɕʰɛk]", 1.0),  # Unreleased or not.
        ("[kuŋ.mul]", "[ˈkuŋ mul]", 1.0),
        ("[saː.ram]", "[sa.ɾam]", 1.0),
        ("[t͡ɕip̚]", "[tɕip]", 1.0),
        ("[tʰal]", "[tal]", 0.75),  # Aspiration tells terms apart.
        ("[tal]", "[t͈al]", 0.75),  # So does tension.
        ("[kuŋ.mul]", "[kuk.mul]", 0.83),
        ("[tɕʰɛk̚]", "[pɛ]", 0.2),
        ("[mul]", "[pɛ]", 0.0),
    ],
)
def test_pronunciations_are_compared_by_what_is_heard(
    one: str, other: str, expected: float
) -> None:
    assert measure("pronunciation", {"ipa": one}, {"ipa": other}) == expected


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [("冊", "冊", 1), (None, None, 1), ("冊", None, 0), ("冊", "書", 0), ("樂", "\uf914", 1)],
)
def test_hanja_are_the_same_or_not(one: str | None, other: str | None, expected: float) -> None:
    assert measure("hanja", {"hanja": one}, {"hanja": other}) == expected


def test_parts_of_speech_are_the_same_or_not() -> None:
    assert measure("pos", {"pos": "noun"}, {"pos": "noun"}) == 1
    assert measure("pos", {"pos": "noun"}, {"pos": "verb"}) == 0


def means(primary: str, others: str | None = None) -> dict[str, Any]:
    return {"primary_meaning": primary, "other_meanings": others}


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (means("book"), means("a book"), 1.0),
        (means("to eat"), means("eat"), 1.0),
        (means("books"), means("book; volume"), 0.75),
        (means("book"), means("volume", "book; tome"), 0.5),
        (means("pear"), means("ship", "pear; belly"), 0.5),
        (means("pear", "ship"), means("ship", "pear"), 1.0),
        (means("pear"), means("boat"), 0.0),
        (means("to be"), means("to be"), 1.0),  # Nothing but empty words: they count then.
        (means("to be"), means("one"), 0.0),
        (means("…"), means("…"), 1.0),
        (means("…"), means("?"), 0.0),
    ],
)
def test_meanings_are_compared_by_their_content_words(
    one: dict[str, Any], other: dict[str, Any], expected: float
) -> None:
    assert measure("meaning", one, other) == expected


texts = st.text(min_size=1, max_size=20).filter(lambda text: bool(text.strip()))


@given(texts, texts, st.text(alphabet="aɡmuɾtʰ͈.ɛ", min_size=1, max_size=9))
def test_it_is_symmetric_and_never_out_of_bounds(one: str, other: str, ipa: str) -> None:
    first = analysis(primary_meaning=one, ipa="[mul]")
    second = analysis(primary_meaning=other, ipa=f"[{ipa}]")
    assert agreement(first, second) == agreement(second, first)
    assert all(0 <= value <= 1 for value in agreement(first, second).values())
