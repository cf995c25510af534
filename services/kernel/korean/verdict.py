"""Whether a given IPA is how a Korean term is said.

correct      as the rules or the lists have it
acceptable   differs only in what the standard permits or many speakers do not tell apart
unconfirmed  right, if one thing holds that spelling does not show and no list knows
wrong        anything else
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from services.kernel.korean.hangul import is_hangul_syllable
from services.kernel.korean.ipa import ipa_of
from services.kernel.korean.lexicon import ARTICLES, Switch, marks_of
from services.kernel.korean.phones import UnreadableIpa, broad, phones_of, releases_wrongly
from services.kernel.korean.pronunciation import Pronunciation, lexical_switches, pronounce
from services.kernel.korean.sound_rules import surface_of

Judgement = Literal["correct", "acceptable", "unconfirmed", "wrong"]

_SWITCH_WORDS: Final[dict[Switch, str]] = {
    "tense": "tense, though spelling does not show it",
    "insert": "with an ㄴ inserted",
    "block": "without liaison",
    "nasal": "with ㄹ said as ㄴ",
}


@dataclass(frozen=True)
class Verdict:
    """`detail` says which lexical switch, or where it differs first; empty when it is right."""

    judgement: Judgement
    expected: str
    detail: str = ""


def judge(term: str, ipa: str, *, hanja: str | None = None) -> Verdict:
    """The verdict on an IPA, in brackets or not. Raises ValueError for a term without Hangul."""
    said = pronounce(term, hanja=hanja)
    try:
        given = phones_of(ipa)
    except UnreadableIpa as error:
        return Verdict("wrong", said.ipa, str(error))
    if releases_wrongly(ipa):
        detail = "an unreleased stop before a vowel: it is linked to it (article 13)"
        return Verdict("wrong", said.ipa, detail)
    if given == phones_of(said.ipa):
        return Verdict("correct", said.ipa)
    if broad(given) in _ways(said):
        return Verdict("acceptable", said.ipa)
    for index, switch, way in _switched(said):
        if broad(given) == way:
            where = f"syllable {index + 1} {_SWITCH_WORDS[switch]} (article {ARTICLES[switch]})"
            return Verdict("unconfirmed", said.ipa, f"right if {where}")
    return Verdict("wrong", said.ipa, _first_difference(given, phones_of(said.ipa)))


def _ways(said: Pronunciation) -> set[tuple[str, ...]]:
    return {broad(phones_of(ipa_of(way))) for way in (said.surface, *said.alternatives)}


def _switched(said: Pronunciation) -> Iterator[tuple[int, Switch, tuple[str, ...]]]:
    """The term with one more switch, where no list knows its word."""
    words = ["".join(filter(is_hangul_syllable, word)) for word in said.term.split()]
    words = [word for word in words if word]
    surfaces = said.surface.split()
    for at, word in enumerate(words):
        if marks_of(word) is not None:
            continue
        known = {mark.index: mark.switch for mark in said.lexical} if len(words) == 1 else {}
        for index, switch in lexical_switches(word):
            if index in known:
                continue
            way = surface_of(word, {**known, index: switch}).text
            whole = " ".join([*surfaces[:at], way, *surfaces[at + 1 :]])
            yield index, switch, broad(phones_of(ipa_of(whole)))


def _first_difference(given: tuple[str, ...], expected: tuple[str, ...]) -> str:
    for place, (one, other) in enumerate(zip(given, expected, strict=False), 1):
        if one != other:
            return f"sound {place} is {one}, expected {other}"
    if len(given) > len(expected):
        return f"{given[len(expected)]} after the end"
    return f"ends before {expected[len(given)]}"
