"""A provider that serves, refuses, breaks and lies, and keeps books of its own."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from typing import Any

from model.network import Link
from unit.term_samples import analysis_reply, as_text, card_reply, cards_reply

from services.kernel.contracts.provenance import Usage
from services.kernel.errors import PermanentError, Throttled, TransientError, UncertainCall
from services.kernel.llm.prompt import CompletionRequest
from services.kernel.llm.provider import Completion, UnfitCompletion

FIT_USD = Decimal("0.002")
UNFIT_USD = Decimal("0.001")
"""No call costs more than a fit one."""

_QUICK_S, _SLOW_S = 0.5, 45.0
"""The slow answer takes longer than the ack_wait and the life of a claim."""


class Mood(Enum):
    """How the provider deals with one call."""

    FIT = "serves it"
    SLOW = "serves it late"
    PROSE = "bills an answer that is no JSON"
    UNFIT = "bills an answer that was cut short"
    FILTERED = "bills an answer without text"
    BUSY = "429"
    BUSY_LONG = "429 for a minute"
    BROKEN = "503"
    CUT_OFF = "bills it, and the answer is lost"
    CUT_OFF_UNBILLED = "is cut off before it has done anything"
    REFUSED = "will never serve this"


BILLED = {
    Mood.FIT: FIT_USD,
    Mood.SLOW: FIT_USD,
    Mood.CUT_OFF: FIT_USD,
    Mood.PROSE: UNFIT_USD,
    Mood.UNFIT: UNFIT_USD,
    Mood.FILTERED: UNFIT_USD,
}
PEACEFUL = (Mood.FIT, Mood.SLOW, Mood.BUSY, Mood.BUSY_LONG)
"""After these every call has one known end, and throttling uses no attempt."""


@dataclass
class Call:
    """One line of the provider's books."""

    number: int
    fingerprint: str
    caller: str
    mood: Mood
    is_open: bool = True
    is_answered: bool = False

    @property
    def generation_id(self) -> str:
        return f"gen-{self.number}"

    @property
    def charged_usd(self) -> Decimal:
        return BILLED.get(self.mood, Decimal(0))

    @property
    def is_fit(self) -> bool:
        """A fit answer was charged, whether it arrived or not."""
        return self.charged_usd == FIT_USD


class ModelProvider:
    """All replicas share it. The moods that were planned come first, then it serves."""

    def __init__(self, on_call: Callable[[Call], None]) -> None:
        self.calls: list[Call] = []
        self.moods: deque[Mood] = deque()
        self._on_call = on_call

    def line(self, link: Link, caller: str) -> Line:
        return Line(self, link, caller)

    def take(self, fingerprint: str, caller: str) -> Call:
        """Bills at once what it will bill: what happens to its caller changes nothing."""
        mood = self.moods.popleft() if self.moods else Mood.FIT
        call = Call(len(self.calls) + 1, fingerprint, caller, mood)
        self._on_call(call)
        self.calls.append(call)
        return call


class Line:
    """One replica's way to the provider. Implements `kernel.llm.provider.Provider`."""

    def __init__(self, provider: ModelProvider, link: Link, caller: str) -> None:
        self._provider = provider
        self._link = link
        self._caller = caller

    async def complete(self, request: CompletionRequest) -> Completion:
        self._link.check_alive()
        call = self._provider.take(request.fingerprint, self._caller)
        try:
            await asyncio.sleep(_SLOW_S if call.mood is Mood.SLOW else _QUICK_S)
            self._link.check_alive()
        finally:
            call.is_open = False
        completion = _answer(call, request)
        call.is_answered = True
        return completion


def _answer(call: Call, request: CompletionRequest) -> Completion:
    match call.mood:
        case Mood.FIT | Mood.SLOW:
            return _completion(call, _fit_text(request))
        case Mood.PROSE:
            return _completion(call, "I'd rather not.")
        case Mood.UNFIT:
            raise UnfitCompletion("finish_length", "cut short", _completion(call, "{"))
        case Mood.FILTERED:
            raise UnfitCompletion("finish_content_filter", "filtered", _completion(call, ""))
        case Mood.BUSY:
            raise Throttled("429", retry_after_s=3)
        case Mood.BUSY_LONG:
            raise Throttled("429", retry_after_s=60)
        case Mood.BROKEN:
            raise TransientError("503")
        case Mood.CUT_OFF | Mood.CUT_OFF_UNBILLED:
            raise UncertainCall("the connection was cut")
        case Mood.REFUSED:
            raise PermanentError("moderated", reason="moderated")


def _completion(call: Call, text: str) -> Completion:
    return Completion(
        text=text,
        model="m/1",
        provider="Model",
        generation_id=call.generation_id,
        usage=Usage(prompt_tokens=10, completion_tokens=10, cost_usd=call.charged_usd),
    )


def _fit_text(request: CompletionRequest) -> str:
    asked = json.loads(request.body)
    _task, _, line = asked["messages"][1]["content"].rpartition("\n")
    data: dict[str, Any] = json.loads(line)
    term = data["term"]
    if asked["response_format"]["json_schema"]["name"] == "analysis":
        return as_text(analysis_reply(term, hanja=None, comparison=None))
    return as_text(cards_reply(card_reply(back=f"{term}: the answer of the card.")))
