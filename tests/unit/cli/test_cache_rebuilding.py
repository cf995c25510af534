"""A completion made again from its result is read as that very result, or it is none."""

from __future__ import annotations

import json
from typing import Any

import pytest
from asking_fakes import Asking
from term_samples import accepted, analysis_reply, analyzed, as_text, cards_reply, incoming

from services.cli.cache.rebuilding import Rebuilt, rebuilt_analysis, rebuilt_cards
from services.kernel import topology
from services.kernel.contracts.analysis import TermAnalyzed
from services.kernel.contracts.card import CardsFinished
from services.kernel.contracts.term import TermAccepted
from services.kernel.llm.provider import Completion
from services.stage1.handler import AnalyzeTerms
from services.stage2.handler import WriteCards

FULL = {"other_meanings": "volume", "usage_context": "everyday", "homonyms": None}
BARE = {"hanja": None, "comparison": None, "homonyms": None, "korean_keywords": ["책"]}
TAGGED = [
    {
        "tab_name": tab_name,
        "front": f"{tab_name}: what  lies\ton the desk?",
        "back": "책, a book.",
        "tags": ["concept:reading room", "level:beginner", "nonsense", "pos:verb"],
        "honorific_level": "해요체",
    }
    for tab_name in ("Cultural", "Scene", "Hanja", "Usage-Comparison")
]


class NoAnalyses:
    async def read(self, batch: str, term_id: str) -> bytes | None:
        return None


def served(text: str) -> Completion:
    return Completion(text=text, model="test/model-served", provider="Test", generation_id="gen-9")


async def analysis_of(reply: dict[str, Any], term: TermAccepted) -> tuple[TermAnalyzed, Asking]:
    """The event that stage 1 makes of a reply."""
    asking = Asking(served(as_text(reply)))
    stage1 = AnalyzeTerms(asking.asker, NoAnalyses())
    data = incoming(topology.accepted_subject(term.batch, term.term_id), term.to_bytes())
    return TermAnalyzed.from_bytes((await stage1(data, asking.ledger)).body), asking


async def cards_of(reply: dict[str, Any], event: TermAnalyzed) -> tuple[CardsFinished, Asking]:
    asking = Asking(served(as_text(reply)))
    subject = topology.analyzed_subject(event.accepted.batch, event.accepted.term_id)
    outgoing = await WriteCards(asking.asker)(incoming(subject, event.to_bytes()), asking.ledger)
    return CardsFinished.from_bytes(outgoing.body), asking


def completion_of(rebuilt: Rebuilt) -> Completion:
    assert rebuilt.completion is not None, rebuilt.reason
    return rebuilt.completion


@pytest.mark.parametrize("values", [{}, FULL, BARE], ids=["sample", "full", "bare"])
async def test_an_analysis_comes_out_of_its_rebuilt_completion_for_nothing_and_says_so(
    values: dict[str, Any],
) -> None:
    term = accepted("책", position=7, hint="a book")
    first, asking = await analysis_of(analysis_reply(**values), term)
    rebuilt = rebuilt_analysis(first.accepted, first.analysis, first.stage1)
    [fingerprint] = asking.cache.completions
    assert rebuilt.fingerprint == fingerprint

    again = Asking()  # No answer: a call would be a fault.
    again.cache.completions[rebuilt.fingerprint] = completion_of(rebuilt)
    stage1 = AnalyzeTerms(again.asker, NoAnalyses())
    subject = topology.accepted_subject(term.batch, term.term_id)
    event = TermAnalyzed.from_bytes(
        (await stage1(incoming(subject, term.to_bytes()), again.ledger)).body
    )
    assert event.analysis == first.analysis
    told = event.stage1
    assert (told.cached, told.rebuilt, told.calls, told.cost_usd) == (True, True, 0, 0)
    assert (told.model, told.provider, told.generation_id) == ("test/model-served", "Test", "gen-9")
    assert (told.usage, told.fingerprint) == (first.stage1.usage, first.stage1.fingerprint)


@pytest.mark.parametrize("reply", [cards_reply(), cards_reply(*TAGGED)], ids=["sample", "tagged"])
async def test_cards_come_out_of_their_rebuilt_completion(reply: dict[str, Any]) -> None:
    event = analyzed()
    first, asking = await cards_of(reply, event)
    rebuilt = rebuilt_cards(event.accepted, first)
    [fingerprint] = asking.cache.completions
    assert rebuilt.fingerprint == fingerprint
    again = Asking()
    again.cache.completions[fingerprint] = completion_of(rebuilt)
    subject = topology.analyzed_subject(event.accepted.batch, event.accepted.term_id)
    outgoing = await WriteCards(again.asker)(incoming(subject, event.to_bytes()), again.ledger)
    second = CardsFinished.from_bytes(outgoing.body)
    assert second.cards == first.cards
    assert (second.stage2.rebuilt, second.stage2.cost_usd) == (True, 0)


async def test_what_is_rebuilt_names_its_question_and_no_call() -> None:
    first, asking = await analysis_of(analysis_reply(), accepted())
    [kept] = asking.cache.completions.values()
    assert (kept.prompt, kept.prompt_version, kept.rebuilt) == ("analysis", "analysis-1", False)
    assert kept.kept_at is not None
    made = completion_of(rebuilt_analysis(first.accepted, first.analysis, first.stage1))
    assert (made.prompt, made.prompt_version, made.rebuilt) == ("analysis", "analysis-1", True)
    assert made.call_id is None
    assert json.loads(made.text)["term"] == "책"


def test_a_result_that_todays_checks_refuse_or_read_otherwise_is_not_kept() -> None:
    event = analyzed()
    linked = event.analysis.model_copy(update={"metaphor": "see https://example.org"})
    refused = rebuilt_analysis(event.accepted, linked, event.stage1)
    assert (refused.completion, refused.reason) == (None, "today's checks refuse it: markup")
    other = event.analysis.model_copy(update={"korean_keywords": ["읽다", "책"]})
    altered = rebuilt_analysis(event.accepted, other, event.stage1)
    assert (altered.completion, altered.reason) == (None, "read again it is another result")
