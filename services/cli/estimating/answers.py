"""Which answers a pipeline has already: the real prompts, looked up in its cache."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

from services.ingest.decode import combined_hint, part_of_speech
from services.ingest.handler import Submission
from services.kernel.contracts.analysis import Analysis, TermAnalyzed
from services.kernel.contracts.provenance import StageProvenance, Usage
from services.kernel.contracts.term import TermAccepted
from services.kernel.errors import ReplyRejected
from services.kernel.llm.cache import CompletionCache
from services.kernel.llm.prompt import Inquiry, Prompt
from services.kernel.llm.reply import read_reply
from services.kernel.model_settings import StageSettings
from services.kernel.provider_access import ProviderAccess
from services.stage1.checks import checked_analysis
from services.stage1.prompt import AnalysisReply, analysis_prompt
from services.stage2.prompt import cards_prompt

_AT_ONCE: Final = 100
_NO_TIME: Final = datetime(2000, 1, 1, tzinfo=UTC)
_NOBODY: Final = StageProvenance(
    model="",
    provider="",
    fingerprint="",
    prompt_version="",
    cached=True,
    attempts=0,
    calls=0,
    usage=Usage(),
    cost_usd=Decimal(0),
    started_at=_NO_TIME,
    finished_at=_NO_TIME,
)


@dataclass(frozen=True)
class Asking:
    """How the stages ask: whom, with which settings, and who answers in their place."""

    access: ProviderAccess
    stage1: StageSettings
    stage2: StageSettings
    fallbacks: tuple[ProviderAccess, ...] = ()

    def inquiry(self, prompt: Prompt, stage: StageSettings) -> Inquiry:
        first = self.access.model_copy(update={"model": stage.model or self.access.model})
        return Inquiry.of(prompt, first, stage, self.fallbacks)


@dataclass
class Known:
    """For how many terms the answers of each stage are in the cache."""

    stage1: int = 0
    stage2: int = 0


def accepted_of(submission: Submission) -> TermAccepted:
    """As far as prompts depend on it."""
    return TermAccepted(
        batch=submission.batch,
        term_id=submission.term_id,
        term=submission.form.text,
        homonym=submission.form.homonym,
        position=1,
        type=part_of_speech(submission.submitted),
        deck=submission.batch,
        hint=combined_hint(submission.submitted, submission.form),
        sequence=1,
        submitted_at=_NO_TIME,
    )


async def known_answers(
    cache: CompletionCache, asking: Asking, terms: Iterable[TermAccepted]
) -> Known:
    """What of these terms costs nothing. The prompt of stage 2 is known where stage 1's answer is.

    Raises Outage when the cache can't be read.
    """
    known = Known()
    remaining = iter(terms)

    async def look() -> None:
        for term in remaining:
            analysis = await _analysis(cache, asking, term)
            if analysis is None:
                continue
            known.stage1 += 1
            analyzed = TermAnalyzed(accepted=term, analysis=analysis, stage1=_NOBODY)
            inquiry = asking.inquiry(cards_prompt(analyzed), asking.stage2)
            is_known = await cache.get(inquiry.fingerprint) is not None
            known.stage2 += is_known

    async with asyncio.TaskGroup() as tasks:
        for _ in range(_AT_ONCE):
            tasks.create_task(look())
    return known


async def _analysis(cache: CompletionCache, asking: Asking, term: TermAccepted) -> Analysis | None:
    inquiry = asking.inquiry(analysis_prompt(term), asking.stage1)
    completion = await cache.get(inquiry.fingerprint)
    if completion is None:
        return None
    try:
        return checked_analysis(read_reply(completion.text, AnalysisReply), term)
    except ReplyRejected:
        return None
