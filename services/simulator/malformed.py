"""Ways in which a model misses the form or the matter of an answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final, TypedDict

from services.kernel.contracts.card import COLUMNS

Answer = dict[str, Any]


class Spoilt(TypedDict, total=False):
    """The parts of a completion that differ from a right one."""

    content: str | None
    finish_reason: str
    refusal: str | None
    choices: bool


_KEPT_PERCENT: Final = (30, 50, 70, 90)
_REFUSAL: Final = "I'm sorry, but I can't help with that request."
_PROSE: Final = (
    "Sure! Here is a short overview of the term. It is common in everyday Korean, and learners "
    "meet it early. Would you like me to go into more detail?"
)
_TRAILING: Final = "\n\nLet me know if you would like me to adjust anything!"


def spoil(kind: str, answer: Answer, data: Answer, variant: int) -> Spoilt:
    """The answer, spoilt. `variant` chooses where several ways lead to the same kind."""
    return _WAYS[kind](answer, data, variant)


def _truncated(answer: Answer, data: Answer, variant: int) -> Spoilt:
    text = _json(answer)
    kept = len(text) * _KEPT_PERCENT[variant % len(_KEPT_PERCENT)] // 100
    return {"content": text[:kept], "finish_reason": "length"}


def _prose(answer: Answer, data: Answer, variant: int) -> Spoilt:
    return {"content": _PROSE}


def _fenced(answer: Answer, data: Answer, variant: int) -> Spoilt:
    opening = ("```json", "```", "Here is the JSON:\n\n```json")[variant % 3]
    text = json.dumps(answer, ensure_ascii=False, indent=2)
    return {"content": f"{opening}\n{text}\n```"}


def _trailing_prose(answer: Answer, data: Answer, variant: int) -> Spoilt:
    return {"content": _json(answer) + _TRAILING}


def _missing_field(answer: Answer, data: Answer, variant: int) -> Spoilt:
    gone, part = _field(answer, variant)
    return {"content": _json(_with_part(answer, {n: v for n, v in part.items() if n != gone}))}


def _schema_violation(answer: Answer, data: Answer, variant: int) -> Spoilt:
    hit, part = _field(answer, variant)
    return {"content": _json(_with_part(answer, {**part, hit: {"value": part[hit]}}))}


def _empty(answer: Answer, data: Answer, variant: int) -> Spoilt:
    return {"content": ("", " \n")[variant % 2]}


def _null(answer: Answer, data: Answer, variant: int) -> Spoilt:
    return {"content": None}


def _refusal(answer: Answer, data: Answer, variant: int) -> Spoilt:
    """In its own field, or by the filter's finish reason."""
    if variant % 2:
        return {"content": None, "refusal": _REFUSAL}
    return {"content": "", "refusal": _REFUSAL, "finish_reason": "content_filter"}


def _no_choices(answer: Answer, data: Answer, variant: int) -> Spoilt:
    return {"content": None, "choices": False}


def _tsv(answer: Answer, data: Answer, variant: int) -> Spoilt:
    """The nine-column text dialect, with or without its header line."""
    rows = [_row(card, data, position) for position, card in enumerate(answer["cards"], 1)]
    header = ["\t".join(COLUMNS)] if variant % 2 else []
    return {"content": "\n".join([*header, *rows])}


def _row(card: Answer, data: Answer, position: int) -> str:
    cells = {
        **card,
        "position": position,
        "term": data["term"],
        "term_number": data.get("term_number") or 1,
        "primer": "Enter the room, open the cabinet and turn to the tab of the term.",
        "tags": ",".join(card["tags"]),
    }
    return "\t".join(" ".join(str(cells[column]).split()) for column in COLUMNS)


def _json(answer: Answer) -> str:
    return json.dumps(answer, ensure_ascii=False)


def _field(answer: Answer, variant: int) -> tuple[str, Answer]:
    """A field that may not miss, and the object that holds it: the answer or its first card."""
    part = answer["cards"][0] if answer.get("cards") else answer
    needed = [n for n in ("primary_meaning", "ipa", "pos", "front", "back") if n in part]
    name = needed[variant % len(needed)] if needed else next(iter(part))
    return name, part


def _with_part(answer: Answer, part: Answer) -> Answer:
    cards = answer.get("cards")
    return {"cards": [part, *cards[1:]]} if cards else part


_WAYS: Final[dict[str, Callable[[Answer, Answer, int], Spoilt]]] = {
    "truncated": _truncated,
    "prose": _prose,
    "fenced": _fenced,
    "trailing_prose": _trailing_prose,
    "missing_field": _missing_field,
    "schema_violation": _schema_violation,
    "empty": _empty,
    "null": _null,
    "refusal": _refusal,
    "no_choices": _no_choices,
    "tsv": _tsv,
}
