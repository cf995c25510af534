"""Hangul as the sound rules see it: syllables of onset, vowel and coda."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from services.kernel.korean.hangul import CODAS, ONSETS, VOWELS

SILENT: Final = "ㅇ"
"""An onset that is written and not spoken."""

_FIRST: Final = ord("가")


class Syllable(NamedTuple):
    """One syllable in compatibility jamo. An open one has the coda "". A cluster is one letter."""

    onset: str
    vowel: str
    coda: str = ""


def syllable_of(character: str) -> Syllable:
    """The letters of one composed syllable."""
    block, coda = divmod(ord(character) - _FIRST, len(CODAS))
    onset, vowel = divmod(block, len(VOWELS))
    return Syllable(ONSETS[onset], VOWELS[vowel], CODAS[coda].strip())


def syllables_of(word: str) -> list[Syllable]:
    """The syllables of a word that is Hangul through and through."""
    return [syllable_of(character) for character in word]


def spelled(syllables: Iterable[Syllable]) -> str:
    """The syllables written out again."""
    return "".join(_composed(syllable) for syllable in syllables)


def _composed(syllable: Syllable) -> str:
    block = ONSETS.index(syllable.onset) * len(VOWELS) + VOWELS.index(syllable.vowel)
    return chr(_FIRST + block * len(CODAS) + CODAS.index(syllable.coda or " "))
