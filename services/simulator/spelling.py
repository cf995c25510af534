"""A rough IPA by spelling alone, syllable by syllable and without any sound change.

It is what a careless model would answer: well formed, and wrong wherever syllables meet.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

LONGEST = 200
"""Characters of an IPA, brackets included; the bound of the analysis contract."""


def _cells(table: str) -> list[str]:
    """The cells of a line; a dash is an empty one."""
    return [cell.replace("-", "") for cell in table.split()]


_ONSETS = _cells("k k͈ n t t͈ ɾ m p p͈ s s͈ - tɕ t͈ɕ tɕʰ kʰ tʰ pʰ h")
_VOWELS = _cells("a ɛ ja jɛ ʌ e jʌ je o wa wɛ we jo u wʌ we wi ju ɯ ɰi i")
_CODAS = _cells("- k̚ k̚ k̚ n n n t̚ l k̚ m l l l p̚ l m p̚ p̚ t̚ t̚ ŋ t̚ t̚ k̚ t̚ p̚ t̚")
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
_NAMES = _cells(
    "에이 비 시 디 이 에프 지 에이치 아이 제이 케이 엘 엠 엔 오 피 큐 아르 에스 티 유 브이 더블유 "
    "엑스 와이 제트 영 일 이 삼 사 오 육 칠 팔 구"
)
_LETTER_NAMES = dict(zip(_LETTERS, _NAMES, strict=True))
_FIRST, _LAST = "가", "힣"


def spell_ipa(term: str) -> str:
    """The term in brackets, its syllables separated by dots, its words by blanks.

    Latin letters and digits are read by their Korean names, everything else is left out; a term
    with nothing to read becomes `[ɯm]`, a Korean "um". What passes 200 characters is cut off.
    """
    words = [".".join(_syllables(word)) for word in unicodedata.normalize("NFC", term).split()]
    spoken = " ".join(word for word in words if word) or _syllable("음")
    inside = LONGEST - len("[]")
    if len(spoken) > inside:
        spoken = spoken[: inside + 1].rpartition(".")[0]
    return f"[{spoken}]"


def _syllables(word: str) -> Iterator[str]:
    for character in word:
        for hangul in _LETTER_NAMES.get(character.lower(), character):
            if _FIRST <= hangul <= _LAST:
                yield _syllable(hangul)


def _syllable(hangul: str) -> str:
    block, coda = divmod(ord(hangul) - ord(_FIRST), len(_CODAS))
    onset, vowel = divmod(block, len(_VOWELS))
    return _join(_ONSETS[onset], _VOWELS[vowel]) + _CODAS[coda]


def _join(onset: str, vowel: str) -> str:
    """s is palatal before i and j; after tɕ no j is heard, after a consonant no ɰ."""
    if onset.startswith("s") and vowel.startswith(("i", "j", "wi")):
        onset = onset.replace("s", "ɕ")
    if "ɕ" in onset and "t" in onset:
        vowel = vowel.removeprefix("j")
    return onset + (vowel.removeprefix("ɰ") if onset else vowel)
