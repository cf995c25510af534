"""What the hanja of a word tell of its pronunciation: tensing that spelling does not show."""

from __future__ import annotations

from typing import Final

from services.kernel.korean.lexicon import Mark
from services.kernel.korean.sound_rules import TENSE
from services.kernel.korean.syllables import Syllable, syllables_of

_TENSE_AFTER_L: Final = "ㄷㅅㅈ"
_TENSE_SUFFIXES: Final = frozenset("法點性症權科病券件價格證字圈狀句")
"""Characters said tense where they end a word of three syllables or more."""
_SONORANT: Final = ("", "ㄴ", "ㄹ", "ㅁ", "ㅇ")


def is_hanja(character: str) -> bool:
    """True for a Chinese character, also one of the compatibility block."""
    return any(
        first <= character <= last
        for first, last in (("\u3400", "\u4dbf"), ("\u4e00", "\u9fff"), ("\uf900", "\ufaff"))
    )


def sino_marks(word: str, hanja: str) -> tuple[Mark, ...]:
    """The marks that follow from a word's hanja, character by character.

    `hanja` may hold Hangul where a part of the word is native. Article 26: ㄷ, ㅅ and ㅈ are tense
    after ㄹ inside a word from Chinese, but not where a syllable is said twice (절절하다).
    """
    if len(word) != len(hanja):
        return ()
    syllables = syllables_of(word)
    return tuple(
        Mark(index, "tense", article)
        for index in range(1, len(word))
        if (article := _article(index, syllables, hanja))
    )


def _article(index: int, syllables: list[Syllable], hanja: str) -> str | None:
    before, syllable = syllables[index - 1], syllables[index]
    if not is_hanja(hanja[index]):
        return None
    is_inside = is_hanja(hanja[index - 1]) and hanja[index] != hanja[index - 1]
    if is_inside and before.coda == "ㄹ" and syllable.onset in _TENSE_AFTER_L:
        return "26"
    is_suffix = index == len(hanja) - 1 >= 2 and hanja[index] in _TENSE_SUFFIXES
    if is_suffix and syllable.onset in TENSE and before.coda in _SONORANT:
        return "28"
    return None
