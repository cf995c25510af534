"""How terms are said: what the lists and the hanja add to the rules, and what else is right."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.kernel.korean.lexicon import Mark, marks_of, read_entry
from services.kernel.korean.pronunciation import pronounce
from services.kernel.korean.sino import sino_marks
from services.kernel.korean.verdict import judge

SYLLABLES = st.integers(0xAC00, 0xD7A3).map(chr)


@pytest.mark.parametrize(
    ("term", "ipa"),
    [
        ("책", "[tɕʰɛk̚]"),
        ("국물", "[kuŋ.mul]"),
        ("독립", "[toŋ.nip̚]"),
        ("물속", "[mul.s͈ok̚]"),
        ("꽃잎", "[k͈on.nip̚]"),
        ("시간", "[ɕi.gan]"),
        ("빨리", "[p͈al.li]"),
        ("한국 사람", "[han.guk̚ sa.ɾam]"),
        ("PC방", "[paŋ]"),
    ],
)
def test_a_term_has_its_ipa(term: str, ipa: str) -> None:
    assert pronounce(term).ipa == ipa


@pytest.mark.parametrize(
    ("term", "others"),
    [
        ("맛있다", ("마딛따",)),
        ("김밥", ("김빱",)),
        ("주의", ("주이",)),
        ("시계", ("시게",)),
        ("버스", ("버쓰", "뻐스", "뻐쓰")),
        ("책", ()),
    ],
)
def test_what_else_is_right_is_told(term: str, others: tuple[str, ...]) -> None:
    assert pronounce(term).alternatives == others


def test_what_has_no_hangul_cannot_be_said() -> None:
    with pytest.raises(ValueError, match="no Hangul"):
        pronounce("book 1")


@pytest.mark.parametrize(
    ("entry", "word", "marks"),
    [
        ("물'속", "물속", (Mark(1, "tense", "28"),)),
        ("김'?밥", "김밥", (Mark(1, "tense", "28", required=False),)),
        ("공'권~력", "공권력", (Mark(1, "tense", "28"), Mark(2, "nasal", "20"))),
        ("맛|?있다", "맛있다", (Mark(1, "block", "15", required=False),)),
        ("꽃+잎", "꽃잎", (Mark(1, "insert", "29"),)),
        ("사람", "사람", ()),
    ],
)
def test_an_entry_is_a_word_and_its_marks(entry: str, word: str, marks: tuple[Mark, ...]) -> None:
    assert read_entry(entry) == (word, marks)


@pytest.mark.parametrize("word", ["물고기가", "발전하다", "인기는"])
def test_a_word_stays_what_it_is_with_an_ending(word: str) -> None:
    assert marks_of(word)


def test_a_word_that_no_list_has_is_not_known() -> None:
    assert marks_of("도서관") is None


@pytest.mark.parametrize(
    ("word", "hanja", "tense"),
    [
        ("갈등", "葛藤", [1]),
        ("발전", "發展", [1]),
        ("일시", "一時", [1]),
        ("물질", "物質", [1]),
        ("절절", "切切", []),
        ("결과", "結果", []),
        ("가정법", "假定法", [2]),
        ("방법", "方法", []),
        ("물고기", "물고기", []),
        ("갈등", "葛", []),
    ],
)
def test_hanja_tell_what_is_tense(word: str, hanja: str, tense: list[int]) -> None:
    assert [mark.index for mark in sino_marks(word, hanja)] == tense


@given(st.text(SYLLABLES, min_size=1, max_size=8))
def test_our_own_ipa_is_always_correct(word: str) -> None:
    assert judge(word, pronounce(word).ipa).judgement == "correct"
