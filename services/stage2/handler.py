"""Analyses in, finished cards out."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from services.kernel import topology
from services.kernel.contracts.analysis import TermAnalyzed
from services.kernel.contracts.card import Card, CardsFinished
from services.kernel.llm.asker import Asker
from services.kernel.llm.calling import Ledger
from services.kernel.llm.provider import Completion
from services.kernel.llm.reply import read_reply
from services.kernel.stream.incoming import Incoming, Outgoing
from services.stage2.checks import checked_cards, passed
from services.stage2.nine_columns import looks_like_columns, read_columns
from services.stage2.prompt import CardsReply, cards_prompt


class WriteCards:
    """The handler of stage 2."""

    def __init__(self, asker: Asker, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)):
        self._asker = asker
        self._now = now

    async def __call__(self, incoming: Incoming, ledger: Ledger) -> Outgoing:
        analyzed = TermAnalyzed.from_bytes(incoming.data)

        def parse(completion: Completion) -> tuple[Card, ...]:
            text = completion.text
            reply = read_columns(text) if looks_like_columns(text) else read_reply(text, CardsReply)
            return checked_cards(reply, analyzed)

        accepted = analyzed.accepted
        revision = accepted.revision
        prompt = cards_prompt(analyzed).revised(revision, stage=2)
        answer = await self._asker.ask(prompt, parse, ledger, accepted)
        finished = CardsFinished(
            batch=accepted.batch,
            term_id=accepted.term_id,
            term=accepted.term,
            homonym=accepted.homonym,
            position=accepted.position,
            deck=accepted.deck,
            pos=analyzed.analysis.pos,
            analysis=analyzed.analysis,
            cards=answer.reply,
            stage1=analyzed.stage1,
            stage2=answer.provenance.model_copy(update={"checks": passed()}),
            submitted_at=accepted.submitted_at,
            finished_at=self._now(),
            revises=revision.revises if revision else None,
            revision=revision.number if revision else 1,
            replays=incoming.replay,
        )
        return Outgoing(
            topology.finished_subject(accepted.batch, accepted.term_id), finished.to_bytes()
        )
