"""What stage 1 believes of a reply: one row a reason to refuse, and what is put right by itself."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest
from term_samples import accepted, analysis_reply

from services.kernel.contracts.analysis import Analysis
from services.kernel.errors import ReplyRejected
from services.stage1.checks import CHECKS, checked_analysis, passed
from services.stage1.prompt import AnalysisReply


def checked(asked: str = "책", position: int = 1, **values: Any) -> Analysis:
    reply = AnalysisReply.model_validate({**analysis_reply(asked), **values})
    return checked_analysis(reply, accepted(asked, position=position))


def homonym(**values: Any) -> dict[str, Any]:
    return {"hanja": "責", "reading": "책", "meaning": "blame", "differentiator": "rare", **values}


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "another term": ({"term": "물"}, "wrong_term"),
    "no term at all": ({"term": ""}, "wrong_term"),
    "a term in English": ({"term": "book"}, "wrong_term"),
    "the term conjugated": ({"term": "책이다"}, "wrong_term"),
    "compared with itself": ({"comparison": {"vs": "책", "nuance": "same"}}, "comparison"),
    "compared with its own spelling": (
        {"comparison": {"vs": "책(冊)", "nuance": "same"}},
        "comparison",
    ),
    "IPA without brackets": ({"ipa": "tɕʰɛk̚"}, "ipa"),
    "IPA in slashes": ({"ipa": "/tɕʰɛk̚/"}, "ipa"),
    "IPA of nothing": ({"ipa": "[]"}, "ipa"),
    "IPA of blanks": ({"ipa": "[ ]"}, "ipa"),
    "IPA twice": ({"ipa": "[tɕʰɛk̚][a]"}, "ipa"),
    "IPA and prose": ({"ipa": "[tɕʰɛk̚] or so"}, "ipa"),
    "Hangul for IPA": ({"ipa": "[책]"}, "ipa"),
    "Hangul for IPA, decomposed": ({"ipa": unicodedata.normalize("NFD", "[책]")}, "ipa"),
    "a control character in IPA": ({"ipa": "[tɕ\x00ʰɛk̚]"}, "ipa"),
    "an endless IPA": ({"ipa": f"[{'a' * 300}]"}, "bounds"),
    "a link": ({"usage_context": "See https://example.org"}, "markup"),
    "a bare web address": ({"explanation": "See WWW.example.org"}, "markup"),
    "HTML": ({"metaphor": "A <b>book</b> claps."}, "markup"),
    "a script": ({"primary_meaning": "book<script>alert(1)</script>"}, "markup"),
    "an Anki field": ({"anchor_object": "{{Front}}"}, "markup"),
    "an Anki sound": ({"anchor_sensory": "[sound:book.mp3]"}, "markup"),
    "a code fence": ({"other_meanings": "```volume```"}, "markup"),
    "a broken character": ({"metaphor_noun": "b\ufffdok"}, "markup"),
    "markup deep inside": ({"homonyms": [homonym(meaning="<i>blame</i>")]}, "markup"),
    "markup in a list": ({"korean_keywords": ["책", "<b>책</b>"]}, "markup"),
    "an empty meaning": ({"primary_meaning": " "}, "bounds"),
    "a long meaning": ({"primary_meaning": "x" * 201}, "bounds"),
    "long other meanings": ({"other_meanings": "x" * 501}, "bounds"),
    "a long metaphor": ({"metaphor": "x" * 301}, "bounds"),
    "an empty metaphor": ({"metaphor": ""}, "bounds"),
    "a long explanation": ({"explanation": "x" * 501}, "bounds"),
    "six homonyms": ({"homonyms": [homonym() for _ in range(6)]}, "bounds"),
    "a homonym without a reading": ({"homonyms": [homonym(reading="")]}, "bounds"),
    "a comparison without nuance": ({"comparison": {"vs": "서적", "nuance": ""}}, "bounds"),
}


@pytest.mark.parametrize(("values", "reason"), REFUSED.values(), ids=REFUSED)
def test_an_unfit_reply_is_refused_for_its_reason(values: dict[str, Any], reason: str) -> None:
    with pytest.raises(ReplyRejected) as raised:
        checked(**values)
    assert raised.value.reason == reason


@pytest.mark.parametrize(
    ("values", "detail"),
    [
        ({"term": "물"}, "asked for 책, answered '물'"),
        ({"homonyms": [homonym(meaning="https://x")]}, "homonyms.meaning holds a link"),
        ({"metaphor": ""}, "metaphor: String should have at least 1 character"),
        ({"comparison": {"vs": "책", "nuance": "same"}}, "책 is compared with itself"),
        ({"ipa": "책"}, "'책' is no IPA in square brackets"),
    ],
)
def test_a_refusal_says_what_is_wrong(values: dict[str, Any], detail: str) -> None:
    with pytest.raises(ReplyRejected) as raised:
        checked(**values)
    assert detail in raised.value.detail


def test_a_fit_reply_becomes_the_analysis_of_the_term_that_was_asked_for() -> None:
    analysis = checked(position=42)
    assert analysis.term_number == 42
    assert analysis.term == "책[tɕʰɛk̚]"
    assert analysis.ipa == "[tɕʰɛk̚]"
    assert analysis.primary_meaning == "book"
    assert analysis.comparison is not None
    assert Analysis.model_validate_json(analysis.to_bytes()) == analysis


SPELLINGS = ["책", " 책 ", "책.", "책[tɕʰɛk̚]", "책(冊)", "책1", unicodedata.normalize("NFD", "책")]


@pytest.mark.parametrize("spelling", SPELLINGS, ids=ascii)
def test_another_spelling_of_the_same_term_is_the_same_term(spelling: str) -> None:
    reply = AnalysisReply.model_validate(analysis_reply(term=spelling))
    assert checked_analysis(reply, accepted("책")).term == "책[tɕʰɛk̚]"


def test_ipa_is_composed_and_put_on_one_line() -> None:
    analysis = checked("눈이 높다", ipa=" [nu.ni\n\tnop̚.t͈a] ")
    assert analysis.term == "눈이 높다[nu.ni nop̚.t͈a]"


def test_no_homonyms_are_null_and_never_an_empty_list() -> None:
    assert checked(homonyms=[]).homonyms is None
    assert checked(homonyms=None).homonyms is None


def test_five_homonyms_are_kept() -> None:
    assert len(checked(homonyms=[homonym() for _ in range(5)]).homonyms or []) == 5


KEYWORDS = {
    "the term is put first": (["읽다", "책"], ["책", "읽다"]),
    "the term is added": (["읽다"], ["책", "읽다"]),
    "none stands twice": (["책", "읽다", "읽다 ", "책"], ["책", "읽다"]),
    "what is foreign falls out": (["book", "책", "冊", "읽다"], ["책", "읽다"]),
    "nothing but foreign": (["book"], ["책"]),
    "ten at most": (
        ["책", *(f"책{n}권" for n in range(20))],
        ["책", *(f"책{n}권" for n in range(9))],
    ),
}


@pytest.mark.parametrize(("said", "kept"), KEYWORDS.values(), ids=KEYWORDS)
def test_keywords_are_korean_and_begin_with_the_term(said: list[str], kept: list[str]) -> None:
    assert checked(korean_keywords=said).korean_keywords == kept


def test_what_came_through_passed_every_check() -> None:
    assert [verdict.check for verdict in passed()] == list(CHECKS)
    assert {verdict.verdict for verdict in passed()} == {"passed"}
