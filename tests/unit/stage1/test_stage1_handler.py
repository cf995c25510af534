"""Stage 1 from an accepted term to the event that it publishes."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from asking_fakes import Asking, completion
from term_samples import accepted, analysis_reply, analyzed, as_text, incoming, provenance

from services.kernel.contracts.analysis import TermAnalyzed
from services.kernel.contracts.base import Batch, TermId
from services.kernel.contracts.provenance import Usage
from services.kernel.contracts.term import TermAccepted
from services.kernel.errors import PermanentError, ReplyRejected
from services.stage1.checks import CHECKS
from services.stage1.handler import AnalyzeTerms
from services.stage1.prompt import VERSION

LATER = datetime(2026, 5, 4, 12, 5, tzinfo=UTC)


class EarlierAnalyses:
    """Events by batch and term. Implements `services.stage1.handler.Analyses`."""

    def __init__(self, *events: TermAnalyzed) -> None:
        self._events = {(e.accepted.batch, e.accepted.term_id): e.to_bytes() for e in events}

    async def read(self, batch: str, term_id: str) -> bytes | None:
        return self._events.get((Batch(batch), TermId(term_id)))


async def handled(
    asking: Asking, term: TermAccepted, *earlier: TermAnalyzed
) -> tuple[str, TermAnalyzed]:
    subject = f"terms.accepted.{term.batch}.{term.term_id}"
    handler = AnalyzeTerms(asking.asker, EarlierAnalyses(*earlier), now=lambda: LATER)
    outgoing = await handler(incoming(subject, term.to_bytes()), asking.ledger)
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
    asking.next_term()
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
    asking = Asking(completion(text), completion(text))
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
        await AnalyzeTerms(asking.asker, EarlierAnalyses())(
            incoming("terms.accepted.b1.x", data), asking.ledger
        )
    assert raised.value.reason == "bad_event"
    assert asking.journal == []


def revised(
    stage: int, *, source: str = "b1", model: str | None = None, **values: Any
) -> TermAccepted:
    """A term of the batch b1-r2."""
    revision = {"revises": "b1", "number": 2, "source": source, "stage": stage, "model": model}
    return accepted(**{"batch": "b1-r2", "revision": revision, **values})


async def test_a_revision_from_stage_2_takes_the_analysis_over_without_a_call() -> None:
    asking = Asking()
    usage = Usage(prompt_tokens=100, completion_tokens=50, cost_usd=Decimal("0.002"))
    earlier = analyzed().model_copy(update={"stage1": provenance(usage=usage, generation_id="g1")})
    term = revised(2, sequence=99, deck="Elsewhere")
    subject, event = await handled(asking, term, earlier)
    assert subject == f"terms.analyzed.b1-r2.{term.term_id}"
    assert event.accepted == term
    assert event.analysis == earlier.analysis
    no_call = {"cached": True, "attempts": 0, "calls": 0, "cost_usd": Decimal(0)}
    times = {"started_at": LATER, "finished_at": LATER}
    assert event.stage1 == earlier.stage1.model_copy(update=no_call | times)
    assert event.stage1.usage == usage
    assert asking.journal == []


async def test_an_analysis_that_is_taken_over_has_the_number_of_its_new_place() -> None:
    _, event = await handled(Asking(), revised(2, position=9), analyzed())
    assert event.analysis.term_number == 9


async def test_the_analysis_comes_from_the_batch_that_is_named() -> None:
    older = analyzed(primary_meaning="older")
    newer = analyzed(accepted_as=accepted(batch="b1-r2"), primary_meaning="newer")
    _, event = await handled(Asking(), revised(2, source="b1-r2", batch="b1-r3"), older, newer)
    assert event.analysis.primary_meaning == "newer"


async def test_an_analysis_that_is_gone_is_given_up_and_says_what_to_do() -> None:
    asking = Asking()
    with pytest.raises(PermanentError, match="--stage 1") as raised:
        await handled(asking, revised(2), analyzed("물"))
    assert raised.value.reason == "checkpoint_gone"
    assert asking.journal == []


async def test_a_revision_from_stage_1_asks_anew_and_keeps_the_new_answer() -> None:
    asking = Asking(
        completion(as_text(analysis_reply())),
        completion(as_text(analysis_reply(primary_meaning="volume"))),
    )
    _, first = await handled(asking, accepted())
    _, second = await handled(asking, revised(1), first)
    asking.next_term()
    _, again = await handled(asking, revised(1), first)
    meanings = [event.analysis.primary_meaning for event in (first, second, again)]
    assert meanings == ["book", "volume", "volume"]
    assert [event.stage1.cached for event in (first, second, again)] == [False, False, True]


async def test_a_revision_from_stage_1_asks_the_model_that_it_names() -> None:
    asking = Asking(completion(as_text(analysis_reply())))
    await handled(asking, revised(1, model="other/model"))
    assert [request.model for request in asking.provider.requests] == ["other/model"]
