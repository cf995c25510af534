"""From the Hangul that is spoken to IPA, narrow enough to teach.

Lenis stops are voiced between voiced sounds, codas unreleased, ㄹ is ɾ before a vowel and l
elsewhere, ㅅ is ɕ before i and j. Syllables are separated by dots, words by blanks.
"""

from __future__ import annotations

from typing import Final

from services.kernel.korean.syllables import SILENT, Syllable, syllables_of

_ONSETS: Final = {
    "ㄱ": "k",
    "ㄲ": "k͈",
    "ㄴ": "n",
    "ㄷ": "t",
    "ㄸ": "t͈",
    "ㄹ": "ɾ",
    "ㅁ": "m",
    "ㅂ": "p",
    "ㅃ": "p͈",
    "ㅅ": "s",
    "ㅆ": "s͈",
    "ㅇ": "",
    "ㅈ": "tɕ",
    "ㅉ": "t͈ɕ",
    "ㅊ": "tɕʰ",
    "ㅋ": "kʰ",
    "ㅌ": "tʰ",
    "ㅍ": "pʰ",
    "ㅎ": "h",
}
_VOICED: Final = {"ㄱ": "g", "ㄷ": "d", "ㅂ": "b", "ㅈ": "dʑ"}
_PALATAL: Final = {"ㅅ": "ɕ", "ㅆ": "ɕ͈"}
_VOWELS: Final = {
    "ㅏ": "a",
    "ㅐ": "ɛ",
    "ㅑ": "ja",
    "ㅒ": "jɛ",
    "ㅓ": "ʌ",
    "ㅔ": "e",
    "ㅕ": "jʌ",
    "ㅖ": "je",
    "ㅗ": "o",
    "ㅘ": "wa",
    "ㅙ": "wɛ",
    "ㅚ": "we",
    "ㅛ": "jo",
    "ㅜ": "u",
    "ㅝ": "wʌ",
    "ㅞ": "we",
    "ㅟ": "wi",
    "ㅠ": "ju",
    "ㅡ": "ɯ",
    "ㅢ": "ɰi",
    "ㅣ": "i",
}
_CODAS: Final = {
    "": "",
    "ㄱ": "k̚",
    "ㄴ": "n",
    "ㄷ": "t̚",
    "ㄹ": "l",
    "ㅁ": "m",
    "ㅂ": "p̚",
    "ㅇ": "ŋ",
}
_VOICED_CODAS: Final = frozenset(("", "ㄴ", "ㄹ", "ㅁ", "ㅇ"))
_FRONT: Final = frozenset("ㅣㅑㅕㅛㅠㅒㅖㅟ")


def ipa_of(surface: str) -> str:
    """The IPA of a surface form, words separated by blanks; without brackets."""
    return " ".join(".".join(_spoken(syllables_of(word))) for word in surface.split())


def _spoken(syllables: list[Syllable]) -> list[str]:
    before: Syllable | None = None
    spoken: list[str] = []
    for syllable in syllables:
        spoken.append(_onset(syllable, before) + _vowel(syllable) + _CODAS[syllable.coda])
        before = syllable
    return spoken


def _onset(syllable: Syllable, before: Syllable | None) -> str:
    onset = syllable.onset
    if onset in _VOICED and before is not None and before.coda in _VOICED_CODAS:
        return _VOICED[onset]
    if onset in _PALATAL and syllable.vowel in _FRONT:
        return _PALATAL[onset]
    if onset == "ㄹ" and before is not None and before.coda == "ㄹ":
        return "l"
    return _ONSETS[onset]


def _vowel(syllable: Syllable) -> str:
    """After tɕ no j is heard, after a consonant no ɰ."""
    vowel = _VOWELS[syllable.vowel]
    if syllable.onset in "ㅈㅉㅊ":
        vowel = vowel.removeprefix("j")
    return vowel if syllable.onset == SILENT else vowel.removeprefix("ɰ")
