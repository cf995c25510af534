"""Words and sentences: counting, cutting, joining, and whether a text gives an answer away."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

_ENDS = (".", "!", "?", "…", ".”", "!”", "?”", '."', '!"', '?"', ".)")
_SHORTEST_CUT = 0.5
"""A text is cut at the end of a sentence when that keeps at least this share of it."""

_ARTICLE = re.compile(r"^(?:the|a|an)\s+", re.IGNORECASE)
_SPOKEN = re.compile(r"[a-z]+")
_EMPTY_WORDS = frozenset(
    _SPOKEN.findall(
        "a an and as at be by for from in is it of on or out so somebody something that the to up "
        "with you your simulated"
    )
)
_LONGEST_ENDING = 3
"""Letters by which forms of a word differ at most: walk, walking."""
_SHORTEST_STEM = 3
_SHORTEST_PART = 4
"""Shorter words stand in others by chance: eat in weather."""


def count_words(text: str) -> int:
    return len(text.split())


def clip(text: object, longest: int) -> str:
    """The text on one line with at most so many words, cut after a sentence where one ends."""
    words = str(text or "").split()
    if len(words) <= longest:
        return " ".join(words)
    kept = words[:longest]
    ends = [i for i, word in enumerate(kept, 1) if word.endswith(_ENDS)]
    if ends and ends[-1] >= longest * _SHORTEST_CUT:
        return " ".join(kept[: ends[-1]])
    return " ".join(kept).rstrip(",;:-–") + "…"


def sentence(text: str) -> str:
    """The text with a capital letter and a full stop; an empty text stays empty."""
    if not text:
        return ""
    return text[0].upper() + text[1:] + ("" if text.endswith(_ENDS) else ".")


def with_article(phrase: str) -> str:
    """`a red lamp` and `red lamp` become `the red lamp`; names stay as they are."""
    bare = _ARTICLE.sub("", phrase)
    first = bare.partition(" ")[0]
    return bare if first[:1].isupper() and not first.isupper() else f"the {bare}"


def content_words(*texts: str) -> frozenset[str]:
    """The English words that carry a meaning; a word is taken once."""
    return frozenset(_SPOKEN.findall(" ".join(texts).lower())) - _EMPTY_WORDS


def gives_away(text: str, told: frozenset[str]) -> int:
    """How many words of the text tell of the answer's `content_words`; 0: it can be asked.

    A word tells of another that it is but for an ending, or that it contains, as bedroom does of
    room. Too strict is better here than too lax.
    """
    parts = [word for word in told if len(word) >= _SHORTEST_PART]
    stems = frozenset[str]().union(*map(_stems, told))
    return sum(
        word in stems or not _stems(word).isdisjoint(told) or any(part in word for part in parts)
        for word in content_words(text)
    )


def join_up(
    required: Sequence[str],
    further: Iterable[str],
    padding: Iterable[str],
    *,
    shortest: int,
    longest: int,
) -> str:
    """The required sentences, then the further ones that fit, then padding while it is short."""
    parts = [part for part in required if part]
    words = sum(map(count_words, parts))
    for part, only_below in [*((f, longest) for f in further), *((p, shortest) for p in padding)]:
        length = count_words(part)
        if part and words < only_below and words + length <= longest:
            parts.append(part)
            words += length
    return " ".join(parts)


@lru_cache(maxsize=10_000)
def _stems(word: str) -> frozenset[str]:
    """The word, and what is left of it without up to three letters of an ending."""
    shortest = max(_SHORTEST_STEM, len(word) - _LONGEST_ENDING)
    return frozenset([word, *(word[:length] for length in range(shortest, len(word)))])
