"""How far two analyses of one term agree. Pure and deterministic.

Four fields are measured, each from 0 to 1, and the least counts: with a mean, three good fields
would hide a wrong part of speech.

pos            1 when equal, else 0
pronunciation  1 − edit distance / length of the longer, after normalisation
hanja          1 when equal, also when neither has any, else 0
meaning        of the content words of each one's primary meaning, the share that stands in the
               other's primary or further meanings; the mean of both directions
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Final

from services.kernel.contracts.analysis import Analysis

FIELDS: Final = ("pos", "pronunciation", "hanja", "meaning")

_UNSPOKEN: Final = re.compile(r"[\[\]/.\s'ˈˌːˑ\u0361\u035c\u031a\u032f\u031e\u0320]")
"""Brackets, syllable dots, stress, length, ties and fine detail: nobody learns a term by them.
Aspiration and tension stay: 달, 탈 and 딸 differ by nothing else."""
_ALIKE: Final = str.maketrans({"g": "ɡ", "r": "ɾ", "\u02bc": "\u0348"})
_WORD: Final = re.compile(r"[^\W\d_]+")
_EMPTY_WORDS: Final = frozenset(
    (
        *("a", "an", "the", "to", "of", "in", "on", "at", "for", "with", "by", "from", "as"),
        *("or", "and", "be", "is", "are", "being", "been", "it", "its", "one", "s"),
        *("someone", "something", "somebody", "sb", "sth", "etc", "esp", "eg", "ie"),
        *("used", "word", "term", "korean"),
    )
)


def agreement(one: Analysis, other: Analysis) -> Mapping[str, float]:
    """The measure of each field in FIELDS."""
    return {
        "pos": float(one.pos == other.pos),
        "pronunciation": _pronunciation(one.ipa, other.ipa),
        "hanja": float(_hanja(one) == _hanja(other)),
        "meaning": (_meaning(one, other) + _meaning(other, one)) / 2,
    }


def _pronunciation(one: str, other: str) -> float:
    spoken, heard = _sounds(one), _sounds(other)
    longer = max(len(spoken), len(heard))
    return 1 - _edits(spoken, heard) / longer if longer else 1.0


def _sounds(ipa: str) -> str:
    return _UNSPOKEN.sub("", unicodedata.normalize("NFD", ipa)).translate(_ALIKE)


def _edits(one: str, other: str) -> int:
    """Levenshtein's distance: the least number of letters to put in, take out or replace."""
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, start=1):
        before, row[0] = row[0], i
        for j, wanted in enumerate(other, start=1):
            cost = min(row[j] + 1, row[j - 1] + 1, before + (letter != wanted))
            before, row[j] = row[j], cost
    return row[-1]


def _hanja(analysis: Analysis) -> str:
    """Compatibility ideographs are the same characters."""
    return "".join(unicodedata.normalize("NFKC", analysis.hanja or "").split())


def _meaning(one: Analysis, other: Analysis) -> float:
    wanted = _words(one.primary_meaning)
    known = _words(other.primary_meaning) | _words(other.other_meanings or "")
    if not wanted:
        return float(one.primary_meaning == other.primary_meaning)
    return len(wanted & known) / len(wanted)


def _words(text: str) -> frozenset[str]:
    """Content words without their plural s; all words where nothing else is left."""
    words = _WORD.findall(unicodedata.normalize("NFC", text).casefold())
    content = [word for word in words if word not in _EMPTY_WORDS]
    return frozenset(_singular(word) for word in content or words)


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word
