"""Asking further models for the same analysis, and saying where they differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from services.kernel.contracts.analysis import Analysis
from services.kernel.contracts.provenance import CheckVerdict, StageProvenance
from services.kernel.contracts.term import TermAccepted
from services.kernel.errors import (
    BatchCancelled,
    Outage,
    PermanentError,
    PipelineError,
    ReplyRejected,
    TransientError,
)
from services.kernel.llm.asker import Asker
from services.kernel.llm.calling import Ledger, Parse
from services.kernel.llm.prompt import Prompt
from services.kernel.metrics import Metrics
from services.stage1.agreement import FIELDS, agreement
from services.stage1.settings import SecondOpinionSettings

CHECK: Final = "second_opinion"
_DETAIL_MAX_CHARACTERS: Final = 1_000
_SILENCE_MAX_CHARACTERS: Final = 100


class SecondOpinion:
    """The check of an analysis by other models.

    Each is asked as the first one was: its answer is claimed, recorded, paid for by the term and
    kept in the cache. One that gives none does not fail the term.
    """

    def __init__(self, asker: Asker, settings: SecondOpinionSettings, metrics: Metrics) -> None:
        self._asker = asker
        self._settings = settings
        self._metrics = metrics

    async def checked(
        self,
        analysis: Analysis,
        stage1: StageProvenance,
        prompt: Prompt,
        parse: Parse[Analysis],
        ledger: Ledger,
        accepted: TermAccepted,
    ) -> StageProvenance:
        """How the analysis came about, with this check's verdict and cost."""
        opinions: dict[str, Analysis] = {}
        silent: dict[str, str] = {}
        for model in self._settings.models:
            try:
                asked = replace(prompt, model=model)
                opinions[model] = (await self._asker.ask(asked, parse, ledger, accepted)).reply
            except (ReplyRejected, PermanentError, TransientError, BatchCancelled) as error:
                if isinstance(error, Outage):
                    raise
                silent[model] = _why(error)
        verdict = judged((stage1.model, analysis), opinions, silent, self._settings.threshold)
        self._metrics.second_opinion("agreed" if verdict.verdict == "passed" else "flagged")
        history = ledger.history
        return stage1.model_copy(
            update={
                "checks": (*stage1.checks, verdict),
                "attempts": ledger.used,
                "calls": history.calls,
                "cost_usd": history.cost_usd,
                "finished_at": datetime.now(UTC),
            }
        )


def judged(
    first: tuple[str, Analysis],
    opinions: dict[str, Analysis],
    silent: dict[str, str],
    threshold: float,
) -> CheckVerdict:
    """Flagged below the threshold, and when nobody has said anything; it says who said what."""
    model, analysis = first
    measures = [agreement(analysis, other) for other in opinions.values()]
    least = {field: min((m[field] for m in measures), default=0.0) for field in FIELDS}
    low = [field for field in FIELDS if least[field] < threshold] if opinions else []
    score = min(least.values())
    told = [f"agreement {score:.2f} of {threshold:g}" if opinions else "no second opinion"]
    if low:
        told[0] += f" ({', '.join(low)})"
        told += [f"{name}: {_said(each)}" for name, each in [(model, analysis), *opinions.items()]]
    told += [f"{name} gave none: {reason}" for name, reason in silent.items()]
    return CheckVerdict(
        check=CHECK,
        verdict="passed" if opinions and not low else "flagged",
        detail="; ".join(told)[:_DETAIL_MAX_CHARACTERS],
    )


def _said(analysis: Analysis) -> str:
    parts: Sequence[str | None] = (
        analysis.pos,
        analysis.ipa,
        analysis.hanja or "no hanja",
        analysis.primary_meaning,
        analysis.other_meanings,
    )
    return ", ".join(part for part in parts if part)


def _why(error: PipelineError) -> str:
    return str(error)[:_SILENCE_MAX_CHARACTERS]
