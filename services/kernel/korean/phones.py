"""IPA of any convention read as phones that can be compared.

Models, dictionaries and textbooks write the same sound in many ways: [tɕ], [t͡ɕ], [tʃ]. What is left
here is what makes a difference to a learner: plain, tense and aspirated, and the vowels.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

_SPELLINGS: Final = {
    "t͈ɕ t͡ɕ͈ tɕ͈ t͈͡ɕ t͈ʃ tʃ͈ t͡ʃ͈ tɕʼ tɕ' ʨ͈": "CC",
    "tɕʰ t͡ɕʰ tʃʰ t͡ʃʰ ʨʰ": "Ch",
    "tɕ t͡ɕ tʃ t͡ʃ ʨ dʑ d͡ʑ dʒ d͡ʒ ʥ ɟʝ": "C",
    "k͈ kʼ k' k*": "kk",
    "t͈ tʼ t' t*": "tt",
    "p͈ pʼ p' p*": "pp",
    "s͈ ɕ͈ sʼ s' ʃ͈ s*": "ss",
    "kʰ kx kç cç cʰ": "kh",
    "tʰ": "th",
    "pʰ pɸ": "ph",
    "sʰ s ɕ ɕʰ ʃ ʃʰ": "s",
    "k g ɡ c ɟ": "k",
    "t d": "t",
    "p b": "p",
    "m": "m",
    "n ɲ": "n",
    "ŋ": "ŋ",
    "l ɭ ʎ ɾ r ɫ": "l",
    "h ɦ ç x ɸ β ɣ": "h",
    "j": "j",
    "w ɥ": "w",
    "ɰ": "ɰ",
    "a ɑ ɐ": "a",
    "ɛ æ": "ɛ",
    "e": "e",
    "ʌ ɔ ə ɘ ɤ": "ʌ",
    "o": "o",
    "u": "u",
    "ɯ ɨ": "ɯ",
    "i": "i",
    "ø": "ø",
    "y": "y",
}
"""Spellings of one phone, and the phone."""

_PHONES: Final = {
    unicodedata.normalize("NFD", spelling): phone
    for spellings, phone in _SPELLINGS.items()
    for spelling in spellings.split()
}
_DROPPED: Final = re.compile(
    "[ːˑ.ˈˌ‿()\\[\\]/ \u0339\u0320\u031e\u031a\u0324\u0329\u032f\u0325\u031f]"
)
"""Length, stress, syllables, and marks of narrow detail; the released stop is told apart before."""
_TOKEN: Final = re.compile("|".join(sorted(map(re.escape, _PHONES), key=len, reverse=True)))
_UNRELEASED_BEFORE_VOWEL: Final = re.compile("\u031a[.‿]?(?=[aɑɐɛæeʌɔəɘɤouɯɨiøyjwɰ])")
_BROAD: Final = {"ɛ": ("e",), "ø": ("w", "e"), "y": ("w", "i")}

VOWELS: Final = frozenset("aɛeʌouɯiøy")


class UnreadableIpa(ValueError):
    """Holds a sign that is no phone of Korean."""


def phones_of(ipa: str) -> tuple[str, ...]:
    """The phones in order. Raises UnreadableIpa."""
    text = _DROPPED.sub("", unicodedata.normalize("NFD", ipa))
    phones: list[str] = []
    at = 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise UnreadableIpa(f"{text[at]!r} is no sound of Korean")
        phones.append(_PHONES[found[0]])
        at = found.end()
    return tuple(phones)


def broad(phones: tuple[str, ...]) -> tuple[str, ...]:
    """Without differences that many speakers do not make: ㅐ and ㅔ, ㅚ and ㅞ."""
    return tuple(part for phone in phones for part in _BROAD.get(phone, (phone,)))


def releases_wrongly(ipa: str) -> bool:
    """True for an unreleased stop right before a vowel: it would be linked to it."""
    return _UNRELEASED_BEFORE_VOWEL.search(unicodedata.normalize("NFD", ipa)) is not None
