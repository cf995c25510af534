"""What the simulated model answers: the right answer, or one of many wrong ones."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from services.simulator.asked import CHAT, Asked
from services.simulator.cards import compose_cards
from services.simulator.differing import differing
from services.simulator.fate import Fate
from services.simulator.invented import invent_analysis
from services.simulator.knowledge import Knowledge
from services.simulator.malformed import spoil
from services.simulator.pricing import count_tokens, keep_tokens
from services.simulator.settings import MODEL_ID

_CHAT_ANSWER: Final = (
    "This is the cardflow simulator. It answers for the term in a JSON object on the last line of "
    'the last user message, like {"term": "책"}.'
)
_STRANGERS: Final = ("우산", "학교")
"""Terms to answer for when the answer shall be for a wrong one."""


@dataclass(frozen=True, slots=True)
class Completion:
    """`choices` is false for a reply without any; `malformed` names what was spoilt."""

    content: str | None
    finish_reason: str = "stop"
    refusal: str | None = None
    choices: bool = True
    malformed: str | None = None


class SimulatedModel:
    """Answers calls; equal calls get equal answers."""

    def __init__(self, knowledge: Knowledge) -> None:
        self._knowledge = knowledge

    def complete(
        self, asked: Asked, fate: Fate, seed: int, *, disagreement_rate: float = 0.0
    ) -> Completion:
        """The completion of a call, spoilt when its fate says so, cut at `max_tokens`."""
        if asked.stage == CHAT:
            return _within(asked.max_tokens, Completion(_CHAT_ANSWER))
        answer = self._answer(asked, asked.data, seed)
        if asked.stage == "analysis" and asked.model != MODEL_ID:
            answer = differing(answer, asked, seed, disagreement_rate)
        if fate.malformed is None:
            return _within(asked.max_tokens, Completion(_to_json(answer)))
        if fate.malformed == "wrong_term":
            completion = Completion(_to_json(self._stray(asked, seed)), malformed="wrong_term")
        else:
            spoilt = spoil(fate.malformed, answer, asked.data, fate.variant)
            completion = Completion(**spoilt, malformed=fate.malformed)
        return _within(asked.max_tokens, completion)

    def _answer(self, asked: Asked, data: dict[str, Any], seed: int) -> dict[str, Any]:
        if asked.stage == "cards":
            wanted = asked.data.get("card_types")
            card_types = [str(w) for w in wanted] if isinstance(wanted, list) else ["Scene"]
            return {"cards": compose_cards(data, card_types, seed)}
        return self._knowledge.find(asked.term, asked.homonym, asked.hint) or invent_analysis(
            asked.term, type_=data.get("type"), hint=asked.hint, seed=seed
        )

    def _stray(self, asked: Asked, seed: int) -> dict[str, Any]:
        """The right form for the wrong term."""
        term = next(stranger for stranger in _STRANGERS if stranger != asked.term)
        analysis = self._knowledge.find(term) or invent_analysis(term, seed=seed)
        return self._answer(asked, analysis, seed) if asked.stage == "cards" else analysis


def _to_json(answer: dict[str, Any]) -> str:
    return json.dumps(answer, ensure_ascii=False)


def _within(max_tokens: int | None, completion: Completion) -> Completion:
    """As a real model: it stops in mid-word at the bound."""
    text = completion.content or ""
    if max_tokens is None or count_tokens(text) <= max_tokens:
        return completion
    return Completion(keep_tokens(text, max_tokens), "length", malformed="max_tokens")
