"""Analyses of terms that we know nothing about: well formed, and marked as simulated throughout."""

from __future__ import annotations

import re
from typing import Final, get_args

from services.kernel.contracts.base import PartOfSpeech
from services.simulator.fate import pick
from services.simulator.knowledge import Analysis
from services.simulator.spelling import spell_ipa

COMPARED_SHARE: Final = 3
"""One in so many invented analyses has a comparison, so that both kinds of cards come about."""

_SCENES = (
    ("paper boat", "refuses to sink", "a paper boat carries a name tag across a puddle"),
    ("brass robot", "hands out stamps", "a brass robot presses a stamp on every passing letter"),
    ("striped balloon", "tugs its string", "a striped balloon lifts a sign over the market roofs"),
    ("wooden penguin", "rings twice", "a wooden penguin skates past and rings a bell twice"),
    ("velvet curtain", "slides open", "a velvet curtain slides open on an empty little stage"),
    ("tin kettle", "whistles a tune", "a tin kettle whistles a tune that nobody has written down"),
)
_PLACES = (
    ("simulated reading room", "simulated glass lamp", "simulated hum of a warm bulb"),
    ("simulated station hall", "simulated round clock", "simulated echo of slow footsteps"),
    ("simulated roof garden", "simulated clay pot", "simulated smell of rain on dust"),
    ("simulated harbour shed", "simulated coil of rope", "simulated salt on the lips"),
)
_NEIGHBOURS = ("낱말", "물건", "생각", "모양", "소리")
_HANGUL_WORD = re.compile(r"[가-힣]+")


def invent_analysis(
    term: str, *, type_: str | None = None, hint: str | None = None, seed: int = 0
) -> Analysis:
    """The fields of an analysis within the contract's bounds; the same for the same arguments."""
    noun, action, scene = pick(_SCENES, seed, "scene", term, hint)
    place, thing, sense = pick(_PLACES, seed, "place", term, hint)
    return {
        "term": term,
        "ipa": spell_ipa(term),
        "pos": _part_of_speech(term, type_),
        "hanja": None,
        "primary_meaning": f"simulated meaning of {term}",
        "other_meanings": "simulated second sense; simulated third sense",
        "metaphor": f"Simulated scene: {scene}, and the label on it reads {term}.",
        "metaphor_noun": f"simulated {noun}",
        "metaphor_action": action,
        "suggested_location": place,
        "anchor_object": thing,
        "anchor_sensory": sense,
        "explanation": "Simulated explanation: this picture was put together by the simulator, "
        f"which knows nothing about {term}. It has the form of a true explanation and no content; "
        "ask a real model for one.",
        "usage_context": f"Simulated usage: a sentence with {term} would stand here.",
        "comparison": _comparison(term, seed),
        "homonyms": None,
        "korean_keywords": _keywords(term),
    }


def _part_of_speech(term: str, type_: str | None) -> str:
    """Without a known type: verbs and adjectives end in 다 in the dictionary."""
    if type_ in get_args(PartOfSpeech):
        return str(type_)
    return "verb" if term.endswith("다") else "noun"


def _comparison(term: str, seed: int) -> dict[str, str] | None:
    if pick(range(COMPARED_SHARE), seed, "compared", term):
        return None
    vs = pick([word for word in _NEIGHBOURS if word != term], seed, "neighbour", term)
    return {
        "vs": vs,
        "nuance": f"Simulated comparison: how {term} differs from {vs} would be told here.",
    }


def _keywords(term: str) -> list[str]:
    """The term itself, then its words in pure Hangul."""
    return list(dict.fromkeys([term, *_HANGUL_WORD.findall(term)]))[:10]
