"""Completions made again from the results that were read from them: free of charge, by checks.

A result on a stream names the fingerprint of its completion and all that is known of it but its
words. These are made anew, in the form in which a model answers, and only what the stage's own
reading turns into the very same result is put into the cache.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from nats.js import JetStreamContext
from pydantic import ValidationError

from services.cli.cache.entries import STAGES, keep_all
from services.kernel import topology
from services.kernel.contracts.analysis import Analysis, TermAnalyzed
from services.kernel.contracts.card import CardsFinished
from services.kernel.contracts.provenance import StageProvenance
from services.kernel.contracts.term import TermAccepted
from services.kernel.errors import ReplyRejected
from services.kernel.llm.provider import Completion
from services.kernel.llm.reply import read_reply
from services.kernel.stream.reading import messages_of
from services.stage1.checks import checked_analysis
from services.stage1.prompt import AnalysisReply
from services.stage2.checks import checked_cards
from services.stage2.prompt import CardsReply

_PAGE: Final = 100
_PROMPTS: Final = {stage: prompt for prompt, stage in STAGES.items()}
_SHOWN_MAX: Final = 20


class Rebuilt(NamedTuple):
    """A completion of a stage for a term; None where the checks of today refuse it: `reason`."""

    stage: str
    subject: str
    fingerprint: str
    completion: Completion | None
    reason: str = ""


@dataclass
class Warmed:
    """What filling the cache came to, in completions; `unfit` has a subject and a reason each."""

    kept: int = 0
    present: int = 0
    refused: int = 0
    unreadable: int = 0
    unfit: list[tuple[str, str]] = field(default_factory=list)

    def refuse(self, subject: str, reason: str) -> None:
        self.refused += 1
        if len(self.unfit) < _SHOWN_MAX:
            self.unfit.append((subject, reason))

    def as_json(self) -> dict[str, Any]:
        return {
            "kept": self.kept,
            "present": self.present,
            "unfit": self.refused,
            "unreadable": self.unreadable,
            "examples": [{"subject": s, "reason": r} for s, r in self.unfit],
        }


async def warm(
    js: JetStreamContext,
    batch: str | None = None,
    stage: str | None = None,
    on_read: Callable[[], None] = lambda: None,
) -> Warmed:
    """Fills the cache from ANALYSES and CARDS; what it has stays. Raises Outage."""
    warmed = Warmed()
    page: dict[str, Rebuilt] = {}
    async for rebuilt in _rebuilt_on_streams(js, batch or "*", warmed, on_read):
        if stage not in (None, rebuilt.stage):
            continue
        if rebuilt.completion is None:
            warmed.refuse(rebuilt.subject, rebuilt.reason)
            continue
        if rebuilt.fingerprint in page:
            warmed.present += 1
        page.setdefault(rebuilt.fingerprint, rebuilt)
        if len(page) >= _PAGE:
            await _put(js, page, warmed)
    await _put(js, page, warmed)
    return warmed


async def _put(js: JetStreamContext, page: dict[str, Rebuilt], warmed: Warmed) -> None:
    pairs = [(r.fingerprint, r.completion) for r in page.values() if r.completion]
    for rebuilt, outcome in zip(page.values(), await keep_all(js, pairs), strict=True):
        if outcome == "kept":
            warmed.kept += 1
        elif outcome == "present":
            warmed.present += 1
        else:
            warmed.refuse(rebuilt.subject, str(outcome))
    page.clear()


async def _rebuilt_on_streams(
    js: JetStreamContext, batch: str, warmed: Warmed, on_read: Callable[[], None]
) -> AsyncIterator[Rebuilt]:
    sources: tuple[tuple[str, str, Callable[[bytes], Iterator[Rebuilt]]], ...] = (
        (topology.ANALYSES.name, topology.analyzed_subject(batch, "*"), _of_analyzed),
        (topology.CARDS.name, topology.finished_subject(batch, "*"), _of_finished),
    )
    for stream, subjects, read in sources:
        async for message in messages_of(js, stream, subjects):
            on_read()
            try:
                for rebuilt in read(message.data):
                    yield rebuilt._replace(subject=message.subject)
            except ValidationError:
                warmed.unreadable += 1


def _of_analyzed(data: bytes) -> Iterator[Rebuilt]:
    event = TermAnalyzed.model_validate_json(data)
    yield rebuilt_analysis(event.accepted, event.analysis, event.stage1)


def _of_finished(data: bytes) -> Iterator[Rebuilt]:
    event = CardsFinished.model_validate_json(data)
    accepted = TermAccepted.model_validate(
        {**event.model_dump(include=set(TermAccepted.model_fields) - {"revision"}), "sequence": 0}
    )
    yield rebuilt_analysis(accepted, event.analysis, event.stage1)
    yield rebuilt_cards(accepted, event)


def rebuilt_analysis(
    accepted: TermAccepted, analysis: Analysis, provenance: StageProvenance
) -> Rebuilt:
    """What stage 1 was answered. The number and the written-out pronunciation are ours."""
    reply = {**analysis.model_dump(mode="json", exclude={"term_number"}), "term": accepted.term}
    text = _as_text(reply)

    def is_same() -> bool:
        return checked_analysis(read_reply(text, AnalysisReply), accepted) == analysis

    return _checked("stage1", text, provenance, is_same)


def rebuilt_cards(accepted: TermAccepted, event: CardsFinished) -> Rebuilt:
    """What stage 2 was answered. Number, primer and our own tags are made anew by its checks."""
    fields = {"tab_name", "front", "back", "tags", "honorific_level"}
    text = _as_text(
        {"cards": [card.model_dump(mode="json", include=fields) for card in event.cards]}
    )
    analyzed = TermAnalyzed(accepted=accepted, analysis=event.analysis, stage1=event.stage1)

    def is_same() -> bool:
        return checked_cards(read_reply(text, CardsReply), analyzed) == event.cards

    return _checked("stage2", text, event.stage2, is_same)


def _checked(
    stage: str, text: str, provenance: StageProvenance, is_same: Callable[[], bool]
) -> Rebuilt:
    try:
        reason = "" if is_same() else "read again it is another result"
    except ReplyRejected as error:
        reason = f"today's checks refuse it: {error.reason}"
    completion = None if reason else _completion(stage, text, provenance)
    return Rebuilt(stage, "", provenance.fingerprint, completion, reason)


def _completion(stage: str, text: str, provenance: StageProvenance) -> Completion:
    return Completion(
        text=text,
        model=provenance.model,
        provider=provenance.provider,
        generation_id=provenance.generation_id,
        usage=provenance.usage,
        prompt=_PROMPTS[stage],
        prompt_version=provenance.prompt_version,
        kept_at=provenance.finished_at,
        rebuilt=True,
    )


def _as_text(reply: dict[str, Any]) -> str:
    return json.dumps(reply, ensure_ascii=False, separators=(",", ":"))
