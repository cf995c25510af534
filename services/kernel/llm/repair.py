"""What to ask after an unfit reply: the same once more, with what was wrong or with more room."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from services.kernel.llm.prompt import Correction, Inquiry
from services.kernel.llm.provider import UnfitCompletion

_ROOM_FACTOR: Final = 2
"""What was cut off by `max_tokens` is given so many times the room, up to its cap."""


def repair_of(inquiry: Inquiry, error: UnfitCompletion) -> Inquiry | None:
    """The question that may mend it; None after a repair, or when there is no more room to give."""
    if inquiry.repairs is not None:
        return None
    if error.reason == "finish_length":
        room = min(_ROOM_FACTOR * inquiry.max_tokens, inquiry.max_tokens_cap)
        if room <= inquiry.max_tokens:
            return None
        return replace(inquiry, max_tokens=room, repairs=inquiry)
    correction = Correction(error.completion.text, error.reason, error.detail)
    return replace(inquiry, correction=correction, repairs=inquiry)
