"""Further models on one term: what is asked, paid and said, and what never fails the term."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from asking_fakes import Asking, Scripted, completion
from term_samples import accepted, analysis_reply, as_text, incoming

from services.kernel.contracts.analysis import TermAnalyzed
from services.kernel.contracts.provenance import CheckVerdict
from services.kernel.errors import (
    BatchCancelled,
    BudgetReached,
    Outage,
    PermanentError,
    SettingsError,
    UncertainCall,
)
from services.kernel.model_settings import ProviderSettings
from services.stage1.handler import AnalyzeTerms
from services.stage1.second_opinion import CHECK, SecondOpinion
from services.stage1.settings import SecondOpinionSettings, Stage1Settings, check_stage1


class NoAnalyses:
    async def read(self, _batch: str, _term_id: str) -> bytes | None:
        return None


def says(**values: Any) -> Scripted:
    return completion(as_text(analysis_reply(**values)))


async def analyzed(asking: Asking, *models: str, threshold: float = 0.7) -> TermAnalyzed:
    settings = SecondOpinionSettings(models=models, threshold=threshold)
    opinion = SecondOpinion(asking.asker, settings, asking.metrics) if models else None
    handler = AnalyzeTerms(asking.asker, NoAnalyses(), opinion=opinion)
    outgoing = await handler(incoming("x", accepted().to_bytes()), asking.ledger)
    return TermAnalyzed.from_bytes(outgoing.body)


def verdict(event: TermAnalyzed) -> CheckVerdict:
    (found,) = [check for check in event.stage1.checks if check.check == CHECK]
    return found


def count(asking: Asking, result: str) -> float:
    return asking.sample("cardflow_second_opinions_total", result=result)


async def test_nobody_else_is_asked_unless_that_is_wanted() -> None:
    asking = Asking(says())
    event = await analyzed(asking)
    assert CHECK not in [check.check for check in event.stage1.checks]


async def test_a_model_that_agrees_is_paid_for_by_the_term_and_kept() -> None:
    asking = Asking(says(), says(metaphor="Quite another scene."))
    event = await analyzed(asking, "b")
    assert (verdict(event).verdict, verdict(event).detail) == ("passed", "agreement 1.00 of 0.7")
    assert [json.loads(r.body)["model"] for r in asking.provider.requests] == ["test/model", "b"]
    fingerprints = {r.fingerprint for r in asking.provider.requests}
    assert asking.cache.completions.keys() == fingerprints
    assert [a.fingerprint for a in asking.ledger.history.attempts] == [
        r.fingerprint for r in asking.provider.requests
    ]
    paid = event.stage1
    assert (paid.attempts, paid.calls, paid.cost_usd) == (2, 2, Decimal("0.004"))
    assert (count(asking, "agreed"), count(asking, "flagged")) == (1, 0)
    assert event.analysis.metaphor == analysis_reply()["metaphor"]


async def test_the_next_batch_has_both_opinions_from_the_cache() -> None:
    asking = Asking(says(), says(pos="verb"))
    first = await analyzed(asking, "b")
    asking.next_term()
    second = await analyzed(asking, "b")
    assert verdict(second) == verdict(first)
    assert (second.stage1.calls, second.stage1.cost_usd) == (0, 0)
    assert len(asking.provider.requests) == 2


DIFFERENT: dict[str, tuple[dict[str, Any], str]] = {
    "pos": ({"pos": "verb"}, "agreement 0.00 of 0.7 (pos)"),
    "pronunciation": ({"ipa": "[mul]"}, "(pronunciation)"),
    "hanja": ({"hanja": None, "comparison": None}, "(hanja)"),
    "meaning": ({"primary_meaning": "water"}, "(meaning)"),
    "two": ({"pos": "verb", "hanja": "書"}, "(pos, hanja)"),
}


@pytest.mark.parametrize(("values", "told"), DIFFERENT.values(), ids=DIFFERENT)
async def test_one_field_below_the_threshold_marks_the_term_and_says_who_said_what(
    values: dict[str, Any], told: str
) -> None:
    asking = Asking(says(), says(**values))
    event = await analyzed(asking, "b")
    found = verdict(event)
    assert found.verdict == "flagged"
    assert found.detail is not None
    assert told in found.detail
    assert "test/model-served: noun, [tɕʰɛk̚], 冊, book" in found.detail
    assert "; b: " in found.detail
    for value in values.values():
        assert value is None or value in found.detail
    assert event.analysis.pos == "noun"
    assert count(asking, "flagged") == 1


async def test_the_threshold_is_a_setting() -> None:
    near = {"ipa": "[tɕʰɛp]"}
    asking = Asking(says(), says(**near), says(), says(**near))
    assert verdict(await analyzed(asking, "b", threshold=0.5)).verdict == "passed"
    asking.next_term()
    asking.cache.completions.clear()
    assert verdict(await analyzed(asking, "b", threshold=0.9)).verdict == "flagged"


SILENT: dict[str, tuple[list[Scripted], str]] = {
    "unfit twice": ([completion("prose")] * 2, "not_json"),
    "cut off": ([UncertainCall("cut off")], "cut off"),
    "unknown": ([PermanentError("no such model", reason="provider_404")], "no such model"),
    "cancelled": ([BatchCancelled("was cancelled")], "was cancelled"),
}


@pytest.mark.parametrize(("answers", "reason"), SILENT.values(), ids=SILENT)
async def test_a_model_that_gives_no_opinion_is_named_and_fails_nothing(
    answers: list[Scripted], reason: str
) -> None:
    asking = Asking(says(), *answers, says())
    found = verdict(await analyzed(asking, "silent", "c"))
    assert found.verdict == "passed"
    assert "silent gave none" in (found.detail or "")
    assert reason in (found.detail or "")


async def test_without_any_second_opinion_a_term_is_marked() -> None:
    asking = Asking(says(), UncertainCall("cut off"))
    found = verdict(await analyzed(asking, "b"))
    assert found.verdict == "flagged"
    assert (found.detail or "").startswith("no second opinion; b gave none: cut off")


@pytest.mark.parametrize("outage", [Outage("NATS is away"), BudgetReached("no money left")])
async def test_our_own_trouble_is_no_opinion(outage: Outage) -> None:
    """The term is tried again later, and finds the first answer in the cache."""
    asking = Asking(says(), outage)
    with pytest.raises(Outage):
        await analyzed(asking, "b")
    assert len(asking.cache.completions) == 1


async def test_what_is_told_is_bounded() -> None:
    long = {"primary_meaning": "x" * 200, "other_meanings": "y" * 500}
    asking = Asking(*[says(**long, pos=pos) for pos in ("noun", "verb", "adverb", "particle")])
    assert len(verdict(await analyzed(asking, "b", "c", "d")).detail or "") == 1_000


@pytest.mark.parametrize("models", [("first",), ("b", "b"), (" ",), ("",)])
def test_a_second_opinion_of_the_same_model_is_refused_at_the_start(models: tuple[str]) -> None:
    provider = ProviderSettings(kind="custom", base_url="http://gpu/v1", model="first")
    wanted = SecondOpinionSettings(models=models)
    with pytest.raises(SettingsError, match="MODELS"):
        check_stage1(Stage1Settings(provider=provider, second_opinion=wanted))
    check_stage1(Stage1Settings(provider=provider))
