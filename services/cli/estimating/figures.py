"""What a call is like on average: measured on this pipeline's newest cards, or typical."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Final

from nats.js import JetStreamContext
from nats.js.errors import NotFoundError
from pydantic import ValidationError

from services.kernel import topology
from services.kernel.contracts.card import CardsFinished
from services.kernel.contracts.provenance import StageProvenance

STAGES: Final = ("stage1", "stage2")
_SAMPLE: Final = 200
"""The newest cards that are looked at."""
_SAMPLE_MIN: Final = 20
_AT_ONCE: Final = 50


@dataclass(frozen=True)
class Figures:
    """One call of a stage: tokens and seconds on average, and the bytes of its longest body.

    `source`: "cards" (measured here) or "typical".
    """

    prompt_tokens: float
    completion_tokens: float
    seconds: float
    body_max_bytes: int
    source: str = "typical"


TYPICAL: Final = {
    "stage1": Figures(459, 273, 6.0, 6_000),
    "stage2": Figures(541, 444, 9.0, 9_000),
}
"""Tokens: the shipped list of 170 words against the simulator, at four bytes a token. Seconds: what
50 tokens a second take. Bytes: above the longest body that the contracts' bounds make likely."""


async def measured_figures(js: JetStreamContext, model: str) -> dict[str, Figures]:
    """Of the stages whose newest cards were written by `model`; without enough of them, none."""
    cards = await _newest_cards(js)
    found = {}
    for stage in STAGES:
        made = [getattr(card, stage) for card in cards]
        asked = [p for p in made if not p.cached and p.model.startswith(model)]
        if len(asked) >= _SAMPLE_MIN:
            found[stage] = _figures(asked, TYPICAL[stage].body_max_bytes)
    return found


def _figures(asked: Sequence[StageProvenance], body_max_bytes: int) -> Figures:
    return Figures(
        prompt_tokens=fmean(p.usage.prompt_tokens for p in asked),
        completion_tokens=fmean(p.usage.completion_tokens for p in asked),
        seconds=median((p.finished_at - p.started_at).total_seconds() for p in asked),
        body_max_bytes=body_max_bytes,
        source="cards",
    )


async def _newest_cards(js: JetStreamContext) -> list[CardsFinished]:
    name = topology.CARDS.name
    try:
        last = (await js.stream_info(name)).state.last_seq
    except NotFoundError:
        return []
    slots = asyncio.Semaphore(_AT_ONCE)

    async def card(sequence: int) -> CardsFinished | None:
        async with slots:
            try:
                stored = await js.get_msg(name, sequence, direct=True)
                return CardsFinished.model_validate_json(stored.data or b"")
            except (NotFoundError, ValidationError):
                return None

    sequences = range(max(1, last - _SAMPLE + 1), last + 1)
    return [found for found in await asyncio.gather(*map(card, sequences)) if found]
