"""How a Korean term is said: its surface form, IPA, what else is right, and the rules at work."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, combinations

from services.kernel.korean.hangul import is_hangul_syllable
from services.kernel.korean.ipa import ipa_of
from services.kernel.korean.lexicon import Mark, Switch, marks_of
from services.kernel.korean.sino import sino_marks
from services.kernel.korean.sound_rules import TENSE, Applied, surface_of
from services.kernel.korean.syllables import SILENT, Syllable, spelled, syllables_of

_OPTIONAL_MAX = 4
"""Marks of one word that are combined freely: 16 ways to say it are enough."""
_SONORANT = ("", "ㄴ", "ㄹ", "ㅁ", "ㅇ")
_Y_VOWELS = "ㅣㅑㅕㅛㅠㅖㅒ"


@dataclass(frozen=True)
class Pronunciation:
    """A term as it is said.

    `alternatives` are other surface forms that the standard permits. `lexical` are the marks that a
    list or the hanja gave: what spelling alone does not show.
    """

    term: str
    surface: str
    ipa: str
    alternatives: tuple[str, ...]
    rules: tuple[Applied, ...]
    lexical: tuple[Mark, ...]


def pronounce(term: str, *, hanja: str | None = None) -> Pronunciation:
    """How a term is said, word by word.

    What is no Hangul is left out. `hanja`, when it is known, stands for the whole term; it is
    used for words that no list knows. Raises ValueError when there is no Hangul at all.
    """
    words = ["".join(filter(is_hangul_syllable, word)) for word in term.split()]
    words = [word for word in words if word]
    if not words:
        raise ValueError(f"{term!r} holds no Hangul")
    said = [_said(word, hanja if len(words) == 1 else None) for word in words]
    surface = " ".join(word.surface for word in said)
    others = [
        " ".join([*(w.surface for w in said[:at]), other, *(w.surface for w in said[at + 1 :])])
        for at, word in enumerate(said)
        for other in word.alternatives
    ]
    return Pronunciation(
        term=term,
        surface=surface,
        ipa=f"[{ipa_of(surface)}]",
        alternatives=tuple(others),
        rules=tuple(chain.from_iterable(word.rules for word in said)),
        lexical=tuple(chain.from_iterable(word.lexical for word in said)),
    )


def _said(word: str, hanja: str | None) -> Pronunciation:
    marks = marks_of(word)
    if marks is None:
        marks = sino_marks(word, hanja) if hanja else ()
    required = [mark for mark in marks if mark.required]
    optional = [mark for mark in marks if not mark.required][:_OPTIONAL_MAX]
    surface = surface_of(word, _switches(required))
    others = {
        surface_of(word, _switches([*required, *chosen])).text
        for size in range(1, len(optional) + 1)
        for chosen in combinations(optional, size)
    }
    ways = dict.fromkeys(chain((surface.text,), sorted(others)))
    permitted = dict.fromkeys(chain.from_iterable((way, *_permitted(word, way)) for way in ways))
    return Pronunciation(
        term=word,
        surface=surface.text,
        ipa=ipa_of(surface.text),
        alternatives=tuple(way for way in permitted if way != surface.text),
        rules=surface.applied,
        lexical=marks,
    )


def _switches(marks: Sequence[Mark]) -> dict[int, Switch]:
    return {mark.index: mark.switch for mark in marks}


def _permitted(word: str, surface: str) -> Iterator[str]:
    """Other vowels that article 5 permits: 의 as 이 inside a word, 시계 as 시게."""
    syllables = syllables_of(surface)
    if len(word) != len(surface):
        return
    for index, (written, said) in enumerate(zip(syllables_of(word), syllables, strict=True)):
        for other in _other_vowels(index, written, said):
            yield spelled([*syllables[:index], other, *syllables[index + 1 :]])


def _other_vowels(index: int, written: Syllable, said: Syllable) -> Iterator[Syllable]:
    if said.vowel == "ㅢ" and index > 0:
        yield said._replace(vowel="ㅣ")
    if said.vowel == "ㅖ" and said.onset not in (SILENT, "ㄹ"):
        yield said._replace(vowel="ㅔ")


def lexical_switches(word: str) -> Iterator[tuple[int, Switch]]:
    """What could happen at the seams of a word though its spelling does not show it."""
    syllables = syllables_of(word)
    if syllables[0].onset in TENSE:
        yield 0, "tense"
    for index in range(1, len(syllables)):
        before, syllable = syllables[index - 1], syllables[index]
        if syllable.onset in TENSE and before.coda in _SONORANT:
            yield index, "tense"
        if syllable.onset == SILENT and before.coda:
            if syllable.vowel in _Y_VOWELS:
                yield index, "insert"
            if before.coda != "ㅇ":
                yield index, "block"
        if before.coda == "ㄴ" and syllable.onset == "ㄹ":
            yield index, "nasal"
