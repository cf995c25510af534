"""Accepted terms in, analyses out."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Protocol

from services.kernel import topology
from services.kernel.contracts.analysis import Analysis, TermAnalyzed
from services.kernel.contracts.base import Batch
from services.kernel.contracts.term import TermAccepted
from services.kernel.errors import PermanentError
from services.kernel.llm.asker import Asker
from services.kernel.llm.calling import Ledger
from services.kernel.llm.provider import Completion
from services.kernel.llm.reply import read_reply
from services.kernel.stream.incoming import Incoming, Outgoing
from services.stage1.checks import checked_analysis, passed
from services.stage1.prompt import AnalysisReply, analysis_prompt
from services.stage1.second_opinion import SecondOpinion


class Analyses(Protocol):
    """What this stage has written before."""

    async def read(self, batch: str, term_id: str) -> bytes | None:
        """The event for a term of a batch, None when it is not there. Raises Outage."""
        ...


class AnalyzeTerms:
    """The handler of stage 1.

    `opinion` is what other models are asked for; None: nobody else is.
    A term of a revision that begins at stage 2 keeps the analysis that it has; no model is asked.
    """

    def __init__(
        self,
        asker: Asker,
        analyses: Analyses,
        *,
        opinion: SecondOpinion | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._asker = asker
        self._analyses = analyses
        self._opinion = opinion
        self._now = now

    async def __call__(self, incoming: Incoming, ledger: Ledger) -> Outgoing:
        accepted = TermAccepted.from_bytes(incoming.data)
        if accepted.revision is not None and accepted.revision.stage > 1:
            analyzed = await self._taken_over(accepted, accepted.revision.source)
        else:
            analyzed = await self._asked(accepted, ledger)
        return Outgoing(
            topology.analyzed_subject(accepted.batch, accepted.term_id),
            analyzed.to_bytes(),
            accepted.priority,
        )

    async def _asked(self, accepted: TermAccepted, ledger: Ledger) -> TermAnalyzed:
        def parse(completion: Completion) -> Analysis:
            return checked_analysis(read_reply(completion.text, AnalysisReply), accepted)

        prompt = analysis_prompt(accepted).revised(accepted.revision, stage=1)
        answer = await self._asker.ask(prompt, parse, ledger, accepted)
        stage1 = answer.provenance.model_copy(update={"checks": passed()})
        if self._opinion is not None:
            stage1 = await self._opinion.checked(
                answer.reply, stage1, prompt, parse, ledger, accepted
            )
        return TermAnalyzed(accepted=accepted, analysis=answer.reply, stage1=stage1)

    async def _taken_over(self, accepted: TermAccepted, source: Batch) -> TermAnalyzed:
        """The analysis as it stands in `source`, under the new term: no call, no cost."""
        data = await self._analyses.read(source, accepted.term_id)
        if data is None:
            raise PermanentError(
                f"the analysis of {accepted.term} in batch {source} is not on ANALYSES, or no "
                "longer; make a revision from stage 1: `cardflow regenerate --batch "
                f"{source} --stage 1`",
                reason="checkpoint_gone",
            )
        earlier = TermAnalyzed.from_bytes(data)
        now = self._now()
        no_call = {
            "cached": True,
            "attempts": 0,
            "calls": 0,
            "cost_usd": Decimal(0),
            "started_at": now,
            "finished_at": now,
        }
        return TermAnalyzed(
            accepted=accepted,
            analysis=earlier.analysis.model_copy(update={"term_number": accepted.position}),
            stage1=earlier.stage1.model_copy(update=no_call),
        )
