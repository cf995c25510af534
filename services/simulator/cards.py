"""Cards composed from the fields of an analysis: one per card type, in the order asked for."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from services.simulator import phrases
from services.simulator.fate import pick, shuffled
from services.simulator.wording import (
    clip,
    content_words,
    count_words,
    gives_away,
    join_up,
    sentence,
    with_article,
)

FRONT_WORDS: Final = (15, 30)
BACK_WORDS: Final = (80, 150)
_BACK_AIM: Final = 140
"""Further sentences stop here; a card need not be as long as it may be."""

# Words that one field may fill, so that the required sentences of a back stay below its bound.
_TERM, _GLOSS, _PHRASE, _TEXT = 6, 18, 7, 50

Card = dict[str, Any]


@dataclass(frozen=True)
class _Sheet:
    """An analysis made ready for sentences; `seed` and `card_type` choose among the templates."""

    fields: Mapping[str, Any]
    card_type: str
    seed: int
    slots: Mapping[str, str]

    def say(self, templates: Sequence[str]) -> str:
        template = pick(templates, self.seed, self.card_type, templates[0], self.slots["term"])
        return sentence(template.format_map(self.slots))

    def text(self, name: str) -> str:
        return sentence(clip(self.fields.get(name), _TEXT))


def compose_cards(fields: Mapping[str, Any], card_types: Sequence[str], seed: int) -> list[Card]:
    """One card per type. `fields` are those of an analysis; missing ones are written around."""
    return [_card(_sheet(fields, card_type, seed)) for card_type in card_types]


def _sheet(fields: Mapping[str, Any], card_type: str, seed: int) -> _Sheet:
    term = clip(str(fields.get("term") or "").partition("[")[0], _TERM)
    comparison = fields.get("comparison")
    vs = comparison.get("vs") if isinstance(comparison, dict) else None

    def phrase(name: str, otherwise: str) -> str:
        return clip(fields.get(name) or otherwise, _PHRASE).rstrip(".")

    slots = {
        "term": term,
        "ipa": clip(fields.get("ipa"), _TERM),
        "meaning": clip(fields.get("primary_meaning") or term, _GLOSS).rstrip("."),
        "other": clip(fields.get("other_meanings"), _GLOSS).rstrip("."),
        "place": with_article(phrase("suggested_location", "quiet front room")),
        "thing": with_article(phrase("anchor_object", "wooden cabinet")),
        "sense": phrase("anchor_sensory", "cool air on your skin"),
        "actor": with_article(phrase("metaphor_noun", "figure from your story")),
        "vs": clip(vs, _TERM),
        "hanja": clip(fields.get("hanja"), _TERM),
    }
    return _Sheet(fields, card_type, seed, slots)


def _card(sheet: _Sheet) -> Card:
    required, further = _back_parts(sheet)
    padding = shuffled(phrases.PADDING, sheet.seed, sheet.card_type, sheet.slots["term"])
    return {
        "tab_name": sheet.card_type,
        "front": _front(sheet),
        "back": join_up(required, further, padding, shortest=BACK_WORDS[0], longest=_BACK_AIM),
        "tags": _tags(sheet),
        "honorific_level": "",
    }


def _front(sheet: _Sheet) -> str:
    """A question of fitting length that tells the least of the answer."""
    templates = {
        "Scene": phrases.SCENE_FRONTS,
        "Usage-Comparison": phrases.COMPARISON_FRONTS if sheet.slots["vs"] else (),
        "Hanja": phrases.HANJA_FRONTS if sheet.slots["hanja"] else (),
    }.get(sheet.card_type, ()) or phrases.PLAIN_FRONTS
    order = shuffled(templates, sheet.seed, sheet.card_type, sheet.slots["term"])
    fronts = (sentence(template.format_map(sheet.slots)) for template in order)
    shortest, longest = FRONT_WORDS
    fitting = (front for front in fronts if shortest <= count_words(front) <= longest)
    told = content_words(sheet.slots["meaning"], sheet.slots["other"])
    telling: dict[int, str] = {}
    for front in fitting:
        words = gives_away(front, told)
        if not words:
            return front
        telling.setdefault(words, front)
    return telling[min(telling)]


def _back_parts(sheet: _Sheet) -> tuple[list[str], list[str]]:
    """What a back must say, and what it says as far as there is room."""
    slots = sheet.slots
    sight, touch = sheet.say(phrases.SIGHTS), sheet.say(phrases.TOUCHES)
    other = sheet.say(phrases.FURTHER_MEANINGS) if slots["other"] else ""
    scene, story, usage = sheet.text("metaphor"), sheet.text("explanation"), _usage(sheet)
    meaning = sheet.say(phrases.MEANINGS)
    match sheet.card_type:
        case "Scene":
            return [meaning, sight, scene, touch], [story, other, usage]
        case "Usage-Comparison" if slots["vs"]:
            nuance = sentence(clip(sheet.fields["comparison"].get("nuance"), _TEXT))
            return [sheet.say(phrases.CONTRASTS), nuance, sight], [
                usage,
                other,
                touch,
                scene,
                story,
            ]
        case "Hanja" if slots["hanja"]:
            required = [
                sheet.say(phrases.HANJA_MEANINGS),
                _reading(slots["term"], slots["hanja"]),
                sheet.say(phrases.HANJA_SIGHTS),
            ]
            return required, [touch, story, other, usage, scene]
        case "Hanja":
            meaning = sentence(phrases.NO_HANJA.format_map(slots))
    return [meaning, usage, sight], [touch, other, story, scene]


def _usage(sheet: _Sheet) -> str:
    usage = sheet.text("usage_context")
    return phrases.USAGE.format(usage=usage) if usage else ""


def _reading(term: str, hanja: str) -> str:
    """How the characters are read; only where each stands for one syllable of the term."""
    if len(hanja) == len(term) == 1:
        return f"The character {hanja} is read {term}."
    if len(hanja) == len(term):
        pairs = [f"{one} is read {read}" for one, read in zip(hanja, term, strict=True)]
        return f"Character by character: {clip(', '.join(pairs), _TEXT)}."
    return f"The characters {hanja} write only a part of {term}; the rest has none."


def _tags(sheet: _Sheet) -> list[str]:
    slots = sheet.slots
    match sheet.card_type:
        case "Usage-Comparison" if slots["vs"]:
            return [f"comparison_term:{_tag(slots['vs'])}"]
        case "Hanja" if slots["hanja"]:
            return ["hanja", *(f"character:{one}" for one in slots["hanja"] if one.isalpha())]
    noun = str(sheet.fields.get("metaphor_noun") or "scene")
    return [f"metaphor:{_tag(noun)}", f"concept:{_tag(slots['meaning'])}"]


def _tag(text: str) -> str:
    """Tags know neither blanks nor commas."""
    return re.sub(r"\W+", "_", text.lower()).strip("_") or "none"
