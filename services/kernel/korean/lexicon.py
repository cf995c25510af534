"""What spelling does not show of a word's pronunciation, from two lists.

`data/lexicon.txt` is this project's own, and explains the marks. `data/sino_korean.txt` follows
from the hanja of words from Chinese by the rules of `sino`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final, Literal

Switch = Literal["tense", "insert", "block", "nasal"]
"""What may happen at the seam before a syllable though spelling does not show it."""

ARTICLES: Final[Mapping[Switch, str]] = {
    "tense": "28",
    "insert": "29",
    "block": "15",
    "nasal": "20",
}

_SWITCHES: Final[Mapping[str, Switch]] = {
    "'": "tense",
    "+": "insert",
    "|": "block",
    "~": "nasal",
}
_LISTS: Final = ("sino_korean.txt", "lexicon.txt")
"""Later ones win."""
_MARK: Final = re.compile(r"(['+|~])([?!]?)")
_ENDINGS: Final = (
    *("하다", "되다", "시키다", "스럽다", "롭다", "이다", "하기", "적", "이", "히", "가", "은"),
    *("는", "을", "를", "에", "에서", "의", "와", "과", "도", "만", "들"),
)
"""What a word of the list may end in besides, and stay what it is."""


@dataclass(frozen=True)
class Mark:
    """A switch before the syllable at `index`, and the article of the standard that it follows.

    `required`: to leave it out is wrong.
    """

    index: int
    switch: Switch
    article: str
    required: bool = True


def marks_of(word: str) -> tuple[Mark, ...] | None:
    """The marks of a word; None when the list does not know it."""
    known = _lexicon()
    if word in known:
        return known[word]
    for ending in _ENDINGS:
        stem = word.removesuffix(ending)
        if len(stem) >= 2 and stem != word and stem in known:
            return known[stem]
    return None


@cache
def _lexicon() -> Mapping[str, tuple[Mark, ...]]:
    entries: dict[str, tuple[Mark, ...]] = {}
    for name in _LISTS:
        text = (files(__package__) / "data" / name).read_text("utf-8")
        for line in text.splitlines():
            if not line.startswith("#"):
                entries.update(map(read_entry, line.split()))
    return entries


def read_entry(entry: str) -> tuple[str, tuple[Mark, ...]]:
    """A word and its marks from a word of the list: 물'속 is 물속 with a tense 속."""
    marks: list[Mark] = []
    word = ""
    at = 0
    for found in _MARK.finditer(entry):
        word += entry[at : found.start()]
        at = found.end()
        switch = _SWITCHES[found[1]]
        marks.append(Mark(len(word), switch, ARTICLES[switch], required=not found[2]))
    return word + entry[at:], tuple(marks)
