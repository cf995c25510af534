"""Accepted terms in, analyses out."""

from __future__ import annotations

from services.kernel import topology
from services.kernel.contracts.analysis import Analysis, TermAnalyzed
from services.kernel.contracts.term import TermAccepted
from services.kernel.llm.asker import Asker
from services.kernel.llm.calling import Ledger
from services.kernel.llm.provider import Completion
from services.kernel.llm.reply import read_reply
from services.kernel.stream.incoming import Incoming, Outgoing
from services.stage1.checks import checked_analysis, passed
from services.stage1.prompt import AnalysisReply, analysis_prompt


class AnalyzeTerms:
    """The handler of stage 1."""

    def __init__(self, asker: Asker) -> None:
        self._asker = asker

    async def __call__(self, incoming: Incoming, ledger: Ledger) -> Outgoing:
        accepted = TermAccepted.from_bytes(incoming.data)

        def parse(completion: Completion) -> Analysis:
            return checked_analysis(read_reply(completion.text, AnalysisReply), accepted)

        answer = await self._asker.ask(analysis_prompt(accepted), parse, ledger)
        analyzed = TermAnalyzed(
            accepted=accepted,
            analysis=answer.reply,
            stage1=answer.provenance.model_copy(update={"checks": passed()}),
        )
        return Outgoing(
            topology.analyzed_subject(accepted.batch, accepted.term_id), analyzed.to_bytes()
        )
