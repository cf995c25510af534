"""Stage 1 from an accepted term to the event that it publishes."""

from __future__ import annotations

from decimal import Decimal

import pytest
from asking_fakes import Asking, completion
from term_samples import accepted, analysis_reply, as_text, incoming

from services.kernel.contracts.analysis import TermAnalyzed
from services.kernel.contracts.term import TermAccepted
from services.kernel.errors import PermanentError, ReplyRejected
from services.stage1.checks import CHECKS
from services.stage1.handler import AnalyzeTerms
from services.stage1.prompt import VERSION


async def handled(asking: Asking, term: TermAccepted) -> tuple[str, TermAnalyzed]:
    subject = f"terms.accepted.{term.batch}.{term.term_id}"
    outgoing = await AnalyzeTerms(asking.asker)(incoming(subject, term.to_bytes()), asking.ledger)
    return outgoing.subject, TermAnalyzed.model_validate_json(outgoing.body)


async def test_an_accepted_term_becomes_an_analysed_one() -> None:
    asking = Asking(completion(as_text(analysis_reply())))
    term = accepted(position=3)
    subject, event = await handled(asking, term)
    assert subject == f"terms.analyzed.b1.{term.term_id}"
    assert event.accepted == term
    assert event.analysis.term_number == 3
    assert event.stage1.prompt_version == VERSION
    assert event.stage1.cost_usd == Decimal("0.002")
    assert [verdict.check for verdict in event.stage1.checks] == list(CHECKS)


async def test_the_same_term_in_another_batch_is_not_paid_again() -> None:
    asking = Asking(completion(as_text(analysis_reply())))
    _, first = await handled(asking, accepted(batch="b1", position=1))
    _, second = await handled(asking, accepted(batch="b2", position=900))
    assert len(asking.provider.requests) == 1
    assert (first.stage1.cached, second.stage1.cached) == (False, True)
    assert second.analysis.term_number == 900
    assert second.accepted.batch == "b2"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("I can't help with that.", "not_json"),
        ("{}", "schema"),
        (as_text(analysis_reply(pos="substantive")), "schema"),
        (as_text(analysis_reply(korean_keywords=[])), "schema"),
        (as_text(analysis_reply(term="물")), "wrong_term"),
        (as_text(analysis_reply()).replace("book", "\\ud83d"), "broken_text"),
    ],
)
async def test_an_unfit_reply_is_billed_and_not_kept(text: str, reason: str) -> None:
    asking = Asking(completion(text))
    with pytest.raises(ReplyRejected) as raised:
        await handled(asking, accepted())
    assert raised.value.reason == reason
    assert asking.ledger.last.outcome == "billed"
    assert asking.cache.completions == {}


async def test_a_reply_around_which_a_model_chats_is_read() -> None:
    text = f"Sure!\n```json\n{as_text(analysis_reply())}\n```\nAnything else?"
    _, event = await handled(Asking(completion(text)), accepted())
    assert event.analysis.primary_meaning == "book"


@pytest.mark.parametrize("data", [b"", b"no JSON", b"{}", b"[]", b"\xff", b'{"term": "\\ud800"}'])
async def test_an_event_that_is_no_accepted_term_is_given_up_before_any_call(data: bytes) -> None:
    asking = Asking()
    with pytest.raises(PermanentError) as raised:
        await AnalyzeTerms(asking.asker)(incoming("terms.accepted.b1.x", data), asking.ledger)
    assert raised.value.reason == "bad_event"
    assert asking.journal == []
