"""The normal form of a term: tables of what people write, and laws that hold for any text."""

from __future__ import annotations

import unicodedata
from typing import get_args

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.kernel.contracts.term import TERM_MAX_CHARACTERS
from services.kernel.errors import TermRefused
from services.kernel.korean.hangul import (
    CODAS,
    ONSETS,
    VOWELS,
    compose_jamo,
    contains_hangul,
    contains_loose_jamo,
    is_hangul_syllable,
)
from services.kernel.korean.normal_form import (
    MAX_CHARACTERS,
    NormalForm,
    RefusalReason,
    normal_form,
)

UNCHANGED = (
    "책",
    "1년",
    "6·25 전쟁",
    "3.1 운동",
    "5.18 민주화 운동",
    "PC방",
    "T셔츠",
    "눈이 높다",
    "코로나19",
    "배100",
    "배0",
    "배1²",
    "레벨 1",
    "-는데",
    "맨-",
    "~하다",
    "女性 전용",
    "책" * MAX_CHARACTERS,
)

SPELLINGS = {
    # composition
    unicodedata.normalize("NFD", "한국어 책"): "한국어 책",
    "ﾡￂﾤ": "간",
    "ㅊㅐㄱ": "책",
    "ㄱㅏㄴㅏ": "가나",
    "ㄷㅏㄺ": "닭",
    "ＰＣ방": "PC방",
    "6ㆍ25 전쟁": "6·25 전쟁",
    "6・25 전쟁": "6·25 전쟁",
    # what nobody sees
    "\ufeff책\u200b": "책",
    "사\u00ad과": "사과",
    "사\u200d과": "사과",
    "\u3164책": "책",
    # blanks
    "  눈이\u3000\u00a0 높다 ": "눈이 높다",
    "책\r\n": "책",
    "\u2028책\u3000\n ": "책",
    # list numbering
    "12. 책": "책",
    "12.책": "책",
    "12) 책": "책",
    "(12) 책": "책",
    "（１２） 책": "책",
    "１２． 책": "책",
    "[12] 책": "책",
    "12、책": "책",
    "① 책": "책",
    "⒓책": "책",
    "㉑책": "책",
    "1. 2) ③ 책": "책",
    "1. 1년": "1년",
    "1. 3.1 운동": "3.1 운동",
    '"1. 책"': "책",
    "- 책": "책",
    "• 책": "책",
    # punctuation around
    "책.": "책",
    "안녕하세요?!": "안녕하세요",
    "책…": "책",
    "책。": "책",
    "책,": "책",
    "“책”": "책",
    "「책」": "책",
    "＜책＞": "책",
    "책 -": "책",
    "책*": "책",
    "책)": "책",
    "\t책": "책",
    "책\t": "책",
    "책()": "책",
}


@pytest.mark.parametrize("text", UNCHANGED)
def test_a_normal_form_is_left_alone(text: str) -> None:
    assert normal_form(text) == NormalForm(text, None, None)


@pytest.mark.parametrize(("raw", "text"), SPELLINGS.items())
def test_spellings_of_a_term_share_its_normal_form(raw: str, text: str) -> None:
    assert normal_form(raw) == NormalForm(text, None, None)


HINTS = {
    "책\tbook": ("책", "book"),
    "책\tbook\t noun ": ("책", "book noun"),
    "3\t책\tbook": ("책", "book"),
    "책(book)": ("책", "book"),
    "책 (book)": ("책", "book"),
    "책（book）": ("책", "book"),
    "책[book]": ("책", "book"),
    "책【book】": ("책", "book"),
    "책(book": ("책", "book"),
    "책(book (n.))": ("책", "book (n.)"),
    "책(book]": ("책", "book"),
    "[명사] 책": ("책", "명사"),
    "사과(沙果)": ("사과", "沙果"),
    "사과(沙果)나무": ("사과나무", "沙果"),
    "사과(沙果, 열매)\tapple": ("사과", "沙果, 열매; apple"),
    "책 [book] (n.)": ("책", "book; n."),
    "12. 책(book).": ("책", "book"),
    "책(2024)": ("책", "2024"),
    "PC(1)방": ("PC방", "1"),
    "책\t\x20": ("책", None),
    "책\t=1+1 <b>": ("책", "=1+1 <b>"),
    "버스(를) 타다": ("버스 타다", "를"),
}


@pytest.mark.parametrize(("raw", "text", "hint"), [(raw, *rest) for raw, rest in HINTS.items()])
def test_a_gloss_becomes_the_hint(raw: str, text: str, hint: str | None) -> None:
    assert normal_form(raw) == NormalForm(text, None, hint)


HOMONYMS = {
    "배01": ("배", 1, None),
    "배002": ("배", 2, None),
    "배3": ("배", 3, None),
    "배012": ("배", 12, None),
    "의사12": ("의사", 12, None),
    "배(1)": ("배", 1, None),
    "배 (02)": ("배", 2, None),
    "배（１）": ("배", 1, None),
    "배[1]": ("배", 1, None),
    "배０１": ("배", 1, None),
    "배¹": ("배", 1, None),
    "배¹²": ("배", 12, None),
    "배₂": ("배", 2, None),
    "배01.": ("배", 1, None),
    "배00": ("배", None, None),
    "배(0)": ("배", None, None),
    "사과나무02": ("사과나무", 2, None),
    "배01(舟)": ("배", 1, "舟"),
    "배(舟)(1)": ("배", 1, "舟"),
    "배(1)(2)": ("배", 1, "2"),
    "3. 배02\tship": ("배", 2, "ship"),
    "1년01": ("1년", 1, None),
}


@pytest.mark.parametrize(
    ("raw", "text", "homonym", "hint"), [(raw, *rest) for raw, rest in HOMONYMS.items()]
)
def test_digits_after_hangul_number_the_homonym(
    raw: str, text: str, homonym: int | None, hint: str | None
) -> None:
    assert normal_form(raw) == NormalForm(text, homonym, hint)


REFUSALS: dict[RefusalReason, tuple[str, ...]] = {
    "empty": ("", "  ", "\u200b\ufeff", "12.", "①", "...", "(책)", "[]", "\t"),
    "control_character": (
        "책\x00",
        "\x1f책",
        "책\x85",
        "책\x1b[0m",
        "책\n물",
        "책\r\n물",
        "책\u2028물",
        "책\tbook\nbooks",
        "\u202e책",
        "\u2066책\u2069",
        "\u200e책",
        "책\ud800",
        "\udfff",
        "책\ufffd",
        "책\ue000",
    ),
    "markup": (
        "<b>책</b>",
        "책<br>",
        "책&nbsp;",
        "&#52293;책",
        "책[sound:book.mp3]",
        "{{책}}",
        "{{c1::책}}",
        r"\(책\)",
        "[latex]책[/latex]",
        "[$]책[/$]",
        "$책$",
        "[SOUND:a.mp3]책",
        "&(x)nbsp;책",
    ),
    "formula": ("=책", "=SUM(책)", "+책", "@책", "-1책", "＝책", '"=책"', "1. =책"),
    "url": ("https://책.kr", "책 www.책.kr", "mailto:책", "naver.com/책", "ftp://책"),
    "mail_address": ("kim@책.kr", "책 kim@example.com"),
    "loose_jamo": ("ㅋㅋ", "ㅏ", "책ㅋㅋ", "ￂ", "ᄀ", "\u11a8", "ㄱㅏㄳㅏ", "-ㄴ데", "ㅎㅏㄴㄱ"),
    "not_korean": ("book", "女性", "123", "😀", "本", "م", "¹"),
    "too_long": ("책" * (MAX_CHARACTERS + 1), "책" * 70_000, "책(" + "가" * 1_000),
}


def test_every_reason_of_refusal_is_tested() -> None:
    assert set(REFUSALS) == set(get_args(RefusalReason))


@pytest.mark.parametrize(
    ("reason", "raw"), [(reason, raw) for reason, raws in REFUSALS.items() for raw in raws]
)
def test_what_is_no_term_is_refused_with_its_reason(reason: RefusalReason, raw: str) -> None:
    with pytest.raises(TermRefused) as refused:
        normal_form(raw)
    assert (refused.value.field, refused.value.reason) == ("term", reason)


def test_a_refusal_shows_what_was_seen_but_not_all_of_a_long_text() -> None:
    with pytest.raises(TermRefused, match=r"'book' has no Hangul; send a Korean term"):
        normal_form("book")
    with pytest.raises(TermRefused, match="…") as refused:
        normal_form("b" * 900)
    assert len(str(refused.value)) < 120


def test_a_refusal_can_be_encoded_even_if_the_text_can_not() -> None:
    with pytest.raises(TermRefused) as refused:
        normal_form("\ud800책")
    assert "U+D800" in str(refused.value.detail.encode())


def test_the_bound_is_that_of_the_contract() -> None:
    assert MAX_CHARACTERS == TERM_MAX_CHARACTERS


def test_decomposed_text_is_measured_after_composing() -> None:
    raw = unicodedata.normalize("NFD", "각" * MAX_CHARACTERS)
    assert normal_form(raw).text == "각" * MAX_CHARACTERS


# Few characters, all of which a rule cares about: far denser than text() alone.
_TRICKY = st.text(
    st.sampled_from(
        "책배가각년 1023459.)(([]{}【】（）①⒓³¹₂\t\n-–~+=@:/;,·ㆍ\"'<>&$\\ㄱㅏㄴㄳᄀ\u1161\u11a8ￂﾡ"
        "\u200b\u00ad\u3000\u0301\u20dd\ufeff\u3164\ud800\x00AaBcw女ｶ＝"
    ),
    max_size=24,
)


@given(st.one_of(st.text(), _TRICKY, st.text(st.characters(categories=["Cs", "Lo", "Mn"]))))
@example("가(x)\u11a8")
@example("e(x)\u0301책")
@example("1(x). 책")
@example("ㄱㅏ(x)\u11a8")
def test_any_text_is_normalised_once_or_refused(raw: str) -> None:
    form = _form_or_refusal(raw)
    if isinstance(form, TermRefused):
        assert (form.field, form.reason in get_args(RefusalReason)) == ("term", True)
        return
    assert normal_form(form.text) == NormalForm(form.text, None, None)
    assert contains_hangul(form.text)
    assert 1 <= len(form.text) <= MAX_CHARACTERS
    assert form.text.isprintable() or "Cn" in map(unicodedata.category, form.text)
    assert unicodedata.is_normalized("NFC", form.text)
    assert form.homonym is None or 1 <= form.homonym <= 99
    assert form.hint is None or form.hint == " ".join(form.hint.split()) != ""


def _form_or_refusal(raw: str) -> NormalForm | TermRefused:
    try:
        return normal_form(raw)
    except TermRefused as refused:
        return refused


@given(st.text(st.characters(min_codepoint=0xAC00, max_codepoint=0xD7A3), min_size=1, max_size=9))
def test_every_way_to_write_syllables_has_one_normal_form(text: str) -> None:
    assert normal_form(unicodedata.normalize("NFD", text)).text == text
    assert normal_form(_spelled_out(text)).text == text


def _spelled_out(text: str) -> str:
    letters = []
    for syllable in text:
        index, coda = divmod(ord(syllable) - ord("가"), len(CODAS))
        onset, vowel = divmod(index, len(VOWELS))
        letters.append(f"{ONSETS[onset]}{VOWELS[vowel]}{CODAS[coda]}".rstrip())
    return "".join(letters)


@pytest.mark.parametrize(
    ("character", "expected"),
    [("가", True), ("힣", True), ("ㄱ", False), ("ᄀ", False), ("a", False), ("", False)],
)
def test_only_composed_syllables_are_syllables(character: str, expected: bool) -> None:
    assert is_hangul_syllable(character) is expected


def test_half_width_letters_are_the_compatibility_letters() -> None:
    half_width = "".join(map(chr, range(0xFFA1, 0xFFDD)))
    letters = [compose_jamo(c) for c in half_width if unicodedata.category(c) == "Lo"]
    assert letters == [chr(code) for code in range(0x3131, 0x3164)]


def test_a_letter_alone_is_a_loose_jamo() -> None:
    assert all(map(contains_loose_jamo, ("ㄱ", "ᄀ", "ﾡ", "책ㅏ")))
    assert not contains_loose_jamo("책 book")
