"""The Hangul block: what is a syllable, what is a loose jamo, and jamo made into syllables."""

from __future__ import annotations

import re
from typing import Final

ONSETS: Final = "ㄱㄲㄴㄷㄸㄹㅁㅂㅃㅅㅆㅇㅈㅉㅊㅋㅌㅍㅎ"
VOWELS: Final = "ㅏㅐㅑㅒㅓㅔㅕㅖㅗㅘㅙㅚㅛㅜㅝㅞㅟㅠㅡㅢㅣ"
CODAS: Final = " ㄱㄲㄳㄴㄵㄶㄷㄹㄺㄻㄼㄽㄾㄿㅀㅁㅂㅄㅅㅆㅇㅈㅊㅋㅌㅍㅎ"
"""In the order of Unicode's syllable block; the blank stands for an open syllable."""

_FIRST, _LAST = "가", "힣"

# Half-width jamo stand in runs of the compatibility jamo, with gaps between the vowels
# (Unicode chart FF00). NFKC would turn them into loose leading jamo instead.
_HALF_WIDTH_RUNS = (
    (0xFFA1, 0x3131, 30),
    (0xFFC2, 0x314F, 6),
    (0xFFCA, 0x3155, 6),
    (0xFFD2, 0x315B, 6),
    (0xFFDA, 0x3161, 3),
)
_HALF_WIDTH = {
    half + step: full + step for half, full, length in _HALF_WIDTH_RUNS for step in range(length)
}

# A consonant before a vowel begins the next syllable: ㄱㅏㄴㅏ is 가나, never 간ㅏ.
_SPELLED_SYLLABLE = re.compile(
    f"([{ONSETS}])([{VOWELS}])(?:([{CODAS[1:]}])(?![{VOWELS}]))?",
)
_LOOSE_JAMO = re.compile("[\u1100-\u11ff\u3131-\u318e\ua960-\ua97c\ud7b0-\ud7fb\uffa0-\uffdc]")
_SYLLABLE = re.compile(f"[{_FIRST}-{_LAST}]")


def is_hangul_syllable(character: str) -> bool:
    """True for one of the 11,172 composed syllables; loose jamo are none."""
    return len(character) == 1 and _FIRST <= character <= _LAST


def contains_hangul(text: str) -> bool:
    return _SYLLABLE.search(text) is not None


def contains_loose_jamo(text: str) -> bool:
    """True if a letter stands alone, be it conjoining, compatibility or half-width jamo."""
    return _LOOSE_JAMO.search(text) is not None


def compose_jamo(text: str) -> str:
    """Half-width and compatibility jamo made into the syllables that they spell.

    `ﾡￂﾤ` and `ㄱㅏㄴ` become `간`. What spells no syllable (`ㅋㅋ`) stays as compatibility jamo.
    Conjoining jamo (NFD) are left to NFC.
    """
    return _SPELLED_SYLLABLE.sub(_compose, text.translate(_HALF_WIDTH))


def _compose(spelled: re.Match[str]) -> str:
    onset, vowel, coda = spelled.groups(default=" ")
    index = (ONSETS.index(onset) * len(VOWELS) + VOWELS.index(vowel)) * len(CODAS)
    return chr(ord(_FIRST) + index + CODAS.index(coda))
