"""Verdicts on given IPA: what is right, what is permitted, what is open, what is wrong."""

from __future__ import annotations

import json
from importlib.resources import files

import pytest

from services.kernel.korean.verdict import Judgement, judge

ANALYSES = (files("services.simulator") / "data" / "analyses.jsonl").read_text("utf-8").splitlines()


@pytest.mark.parametrize(
    ("term", "ipa", "judgement"),
    [
        ("책", "[tɕʰɛk̚]", "correct"),
        ("책", "tʃʰɛk", "correct"),
        ("책", "[tɕʰek̚]", "acceptable"),
        ("책", "[tɕʰɛːk̚]", "correct"),
        ("책", "[tɕɛk̚]", "wrong"),
        ("책", "[t͈ɕɛk̚]", "wrong"),
        ("국물", "[kuk̚.mul]", "wrong"),
        ("시계", "[ɕi.ge]", "acceptable"),
        ("주의", "[tɕu.i]", "acceptable"),
        ("외국", "[ø.guk̚]", "acceptable"),
        ("귀", "[ky]", "acceptable"),
        ("맛있다", "[ma.dit̚.t͈a]", "acceptable"),
        ("버스", "[p͈ʌ.s͈ɯ]", "acceptable"),
        ("솔밭", "[sol.p͈at̚]", "unconfirmed"),
        ("맞아", "[mat̚.a]", "wrong"),
        ("책이", "[tɕʰɛk̚.i]", "wrong"),
        ("책", "[book]", "wrong"),
        ("책", "[tɕʰɛ]", "wrong"),
        ("책", "[tɕʰɛk̚.ta]", "wrong"),
        ("책", "[tɕʰɛ?]", "wrong"),
    ],
)
def test_an_ipa_is_judged(term: str, ipa: str, judgement: Judgement) -> None:
    assert judge(term, ipa).judgement == judgement


@pytest.mark.parametrize(
    ("term", "ipa", "detail"),
    [
        ("국물", "[kuk̚.mul]", "sound 3 is k, expected ŋ"),
        ("책", "[tɕʰɛ]", "ends before k"),
        ("책", "[tɕʰɛk̚.ta]", "t after the end"),
        ("책", "[tɕʰɛ?]", "'?' is no sound of Korean"),
        ("책이", "[tɕʰɛk̚.i]", "an unreleased stop before a vowel: it is linked to it (article 13)"),
        (
            "솔밭",
            "[sol.p͈at̚]",
            "right if syllable 2 tense, though spelling does not show it (article 28)",
        ),
    ],
)
def test_a_verdict_says_why(term: str, ipa: str, detail: str) -> None:
    assert judge(term, ipa).detail == detail


def test_hanja_settle_what_spelling_leaves_open() -> None:
    ipa = "[mjʌl.t͈on]"
    assert judge("멸돈", ipa).judgement == "unconfirmed"
    assert judge("멸돈", ipa, hanja="滅豚").judgement == "correct"


@pytest.mark.parametrize("line", ANALYSES)
def test_every_shipped_analysis_is_correct(line: str) -> None:
    analysis = json.loads(line)
    verdict = judge(analysis["term"], analysis["ipa"], hanja=analysis.get("hanja"))
    assert verdict.judgement == "correct", verdict
