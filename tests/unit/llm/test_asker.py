"""The asker's order of things: what is asked, recorded, paid and kept, and what is not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from decimal import Decimal

import pytest
from asking_fakes import (
    SECRET,
    Asking,
    MemoryCache,
    MemoryClaims,
    access,
    completion,
    started,
    until,
)
from term_samples import accepted

from services.kernel.contracts.attempt import Outcome
from services.kernel.errors import (
    CallRefused,
    PermanentError,
    PipelineError,
    ProviderBlocked,
    ReplyRejected,
    Throttled,
    TransientError,
    UncertainCall,
)
from services.kernel.llm.asker import Answer
from services.kernel.llm.claims import Claim
from services.kernel.llm.prompt import Prompt, completion_request
from services.kernel.llm.provider import Completion, UnfitCompletion

PROMPT = Prompt(
    name="analysis",
    version="analysis-1",
    system="You write JSON.",
    task="Analyse.",
    reply_schema={"type": "object"},
    data={"term": "책"},
)


def text_of(completion: Completion) -> str:
    if completion.text == "unfit":
        raise ReplyRejected("wrong_term", "asked for 책, answered '물'")
    return completion.text


async def asked(asking: Asking) -> Answer[str]:
    return await asking.asker.ask(PROMPT, text_of, asking.ledger, accepted())


def fingerprint(asking: Asking) -> str:
    return completion_request(
        PROMPT,
        asking.access,
        max_tokens=asking.stage.max_tokens,
        temperature=asking.stage.temperature,
    ).fingerprint


async def test_a_miss_is_begun_before_the_call_and_billed_after_the_cache_write() -> None:
    asking = Asking(completion("yes"))
    answer = await asked(asking)
    assert answer.reply == "yes"
    assert asking.journal == ["cache.get", "begin", "call", "cache.put", "settle billed"]


async def test_a_billed_attempt_names_the_generation_the_model_and_the_cost() -> None:
    asking = Asking(completion("yes", cost_usd="0.0021"))
    await asked(asking)
    attempt = asking.ledger.last
    assert (attempt.outcome, attempt.error) == ("billed", None)
    assert (attempt.generation_id, attempt.model) == ("gen-1", "test/model-served")
    assert attempt.cost_usd == Decimal("0.0021")
    assert attempt.fingerprint == fingerprint(asking)


async def test_the_provenance_says_how_the_answer_came_about() -> None:
    asking = Asking(completion("yes"))
    provenance = (await asked(asking)).provenance
    assert provenance.model == "test/model-served"
    assert provenance.provider == "Test"
    assert provenance.generation_id == "gen-1"
    assert provenance.fingerprint == fingerprint(asking)
    assert provenance.prompt_version == "analysis-1"
    assert (provenance.cached, provenance.attempts, provenance.calls) == (False, 1, 1)
    assert provenance.cost_usd == Decimal("0.002")
    assert provenance.usage.prompt_tokens == 100
    assert provenance.started_at <= provenance.finished_at
    assert provenance.checks == ()


async def test_a_cache_hit_takes_no_permit_no_call_and_no_ledger_entry() -> None:
    asking = Asking()
    asking.cache.completions[fingerprint(asking)] = completion("kept")
    asking.route.health.cool_down(3_600, "asked to wait")
    answer = await asked(asking)
    assert answer.reply == "kept"
    assert asking.journal == ["cache.get", "recover"]
    assert asking.ledger.history.attempts == ()
    assert asking.sample("cardflow_cache_requests_total", result="hit") == 1
    assert asking.sample("cardflow_cache_saved_usd_total") == pytest.approx(0.002)


async def test_a_cache_hit_is_free_but_shows_the_usage_of_the_original_call() -> None:
    asking = Asking()
    asking.cache.completions[fingerprint(asking)] = completion("kept")
    provenance = (await asked(asking)).provenance
    assert (provenance.cached, provenance.calls, provenance.attempts) == (True, 0, 0)
    assert provenance.cost_usd == 0
    assert provenance.usage.completion_tokens == 50


async def test_a_second_ask_for_the_same_is_served_from_the_cache() -> None:
    asking = Asking(completion("yes"))
    await asked(asking)
    again = (await asked(asking)).provenance
    assert len(asking.provider.requests) == 1
    # Of the same term: what it cost then is what its card says now, too.
    assert (again.cached, again.calls, again.cost_usd) == (False, 1, Decimal("0.002"))


async def test_a_call_whose_process_died_after_its_answer_is_recovered_as_paid() -> None:
    asking = Asking()
    key = fingerprint(asking)
    asking = Asking(earlier=[started(key, "call-1")])
    kept = completion("kept", cost_usd="0.004").model_copy(update={"call_id": "call-1"})
    asking.cache.completions[key] = kept
    provenance = (await asked(asking)).provenance
    assert (provenance.cached, provenance.calls) == (False, 1)
    assert provenance.cost_usd == Decimal("0.004")
    assert asking.provider.requests == []


async def test_an_open_call_does_not_take_the_answer_that_somebody_else_paid_for() -> None:
    """Its own answer was never seen; another batch asked for the same, and was answered."""
    asking = Asking()
    key = fingerprint(asking)
    asking = Asking(earlier=[started(key, "call-1")])
    theirs = completion("theirs").model_copy(update={"call_id": "another"})
    asking.cache.completions[key] = theirs
    provenance = (await asked(asking)).provenance
    assert (provenance.cached, provenance.cost_usd) == (True, 0)
    assert asking.ledger.last.outcome == "started"


async def test_what_is_kept_names_the_call_that_it_came_from() -> None:
    asking = Asking(completion("yes"))
    await asked(asking)
    [kept] = asking.cache.completions.values()
    assert kept.call_id == asking.ledger.last.id


async def test_an_unfit_cached_completion_is_a_miss_and_is_replaced() -> None:
    asking = Asking(completion("fit"))
    key = fingerprint(asking)
    asking.cache.completions[key] = completion("unfit")
    answer = await asked(asking)
    assert (answer.reply, answer.provenance.cached) == ("fit", False)
    assert asking.cache.completions[key].text == "fit"
    assert asking.sample("cardflow_cache_requests_total", result="hit") == 0
    assert asking.sample("cardflow_cache_requests_total", result="miss") == 1
    assert asking.sample("cardflow_cache_saved_usd_total") == 0


@pytest.mark.parametrize("kind", [Throttled, ProviderBlocked])
async def test_being_throttled_waits_in_hand_and_uses_no_attempt(kind: type[Throttled]) -> None:
    asking = Asking(kind("429", retry_after_s=7), kind("429", retry_after_s=30), completion("yes"))
    provenance = (await asked(asking)).provenance
    assert [entry for entry in asking.journal if not entry.startswith("sleep")] == [
        "cache.get",
        *("begin", "call", "settle throttled"),
        *("begin", "call", "settle throttled"),
        *("begin", "call", "cache.put", "settle billed"),
    ]
    assert asking.time.now == pytest.approx(1_000 + 7 + 30, abs=0.2)
    assert (provenance.attempts, provenance.calls) == (1, 1)
    assert asking.sample("cardflow_model_calls_total", outcome="throttled") == 2


async def test_one_throttled_ask_holds_the_others_back() -> None:
    asking = Asking(Throttled("429", retry_after_s=7), completion("one"), completion("two"))
    others = Asking()
    asking.time.pause = asyncio.Event()
    first = asyncio.create_task(asked(asking))
    await until(lambda: "sleep 0.5" in asking.journal)
    another = replace(PROMPT, data={"term": "물"})
    second = asyncio.create_task(asking.asker.ask(another, text_of, others.ledger, accepted()))
    await until(lambda: asking.journal.count("cache.get") == 2)
    assert asking.journal.count("call") == 1
    assert others.journal == []
    asking.time.pause.set()
    await asyncio.gather(first, second)
    assert asking.journal.count("call") == 3


FAILURES: list[tuple[Exception, Outcome]] = [
    (UncertainCall("cut off"), "uncertain"),
    (TransientError("refused"), "unbilled"),
    (PermanentError("400"), "unbilled"),
    (PipelineError("anything of ours"), "unbilled"),
    (RuntimeError("nobody knows"), "uncertain"),
    (RuntimeError(), "uncertain"),
]


@pytest.mark.parametrize(("failure", "outcome"), FAILURES, ids=repr)
async def test_a_failed_call_is_recorded_as_what_it_may_have_cost(
    failure: Exception, outcome: Outcome
) -> None:
    asking = Asking(failure)
    with pytest.raises(type(failure)) as raised:
        await asked(asking)
    assert raised.value is failure
    assert asking.ledger.last.outcome == outcome
    assert asking.ledger.last.error == (str(failure) or repr(failure))
    assert asking.ledger.history.uncertain == (outcome == "uncertain")
    assert asking.cache.completions == {}
    assert asking.journal == ["cache.get", "begin", "call", f"settle {outcome}"]
    assert asking.sample("cardflow_model_calls_total", outcome=outcome) == 1


async def test_a_completion_that_the_parser_stumbles_over_is_billed_all_the_same() -> None:
    def stumble(_completion: Completion) -> str:
        raise ZeroDivisionError

    asking = Asking(completion("yes"))
    with pytest.raises(ZeroDivisionError):
        await asking.asker.ask(PROMPT, stumble, asking.ledger, accepted())
    assert asking.ledger.last.outcome == "billed"
    assert asking.ledger.last.error == "ZeroDivisionError()"
    assert asking.ledger.last.cost_usd == Decimal("0.002")
    assert asking.cache.completions == {}


async def test_a_paid_answer_is_held_until_the_cache_has_it() -> None:
    asking = Asking(completion("yes"))
    asking.cache.full_for = 2
    answer = await asked(asking)
    assert (answer.reply, answer.provenance.cached) == ("yes", False)
    assert asking.journal == [
        *("cache.get", "begin", "call"),
        *("cache.put", "sleep 0.1", "cache.put", "sleep 0.2", "cache.put"),
        "settle billed",
    ]
    assert asking.cache.completions
    assert asking.holds == ["the cache is full", "the cache is full", None]


async def test_how_a_call_ended_is_held_until_it_is_on_record() -> None:
    asking = Asking(UncertainCall("cut off"))
    asking.ledger.away_for = 1
    with pytest.raises(UncertainCall):
        await asked(asking)
    assert asking.journal[2:] == ["call", "settle uncertain", "sleep 0.1", "settle uncertain"]
    assert asking.ledger.last.outcome == "uncertain"


async def test_a_success_whose_claim_was_in_doubt_is_sure_when_nobody_else_has_asked() -> None:
    asking = Asking(completion("yes"))
    asking.claims.kept = [True, True, False]
    await asked(asking)
    assert asking.ledger.last.outcome == "billed"
    assert asking.cache.completions


async def test_a_claim_that_is_lost_while_the_answer_is_held_is_looked_at_again() -> None:
    """The cache was away for long; somebody else has asked by then."""
    asking = Asking(completion("yes"))
    asking.cache.full_for = 1
    asking.claims.kept = [True, True, True, False]
    asking.claims.is_free = False
    await asked(asking)
    assert asking.journal.count("cache.put") == 1
    assert asking.ledger.last.outcome == "uncertain"


@pytest.mark.parametrize("other", ["asks now", "was answered"])
async def test_a_success_that_may_be_the_second_is_no_sure_one_and_shows_its_cost(
    other: str,
) -> None:
    asking = Asking(completion("yes", cost_usd="0.0021"))
    asking.claims.kept = [True, True, False]
    asking.claims.is_free = other != "asks now"
    print_ = fingerprint(asking)
    theirs = completion("theirs").model_copy(update={"call_id": "another"})

    class Meanwhile(MemoryCache):
        async def get(self, fingerprint: str) -> Completion | None:
            return theirs if asking.provider.requests else None

    asking.caller._cache = asking.asker._cache = Meanwhile(asking.journal)
    answer = await asked(asking)
    attempt = asking.ledger.last
    assert answer.reply == "yes"
    assert (attempt.outcome, attempt.cost_usd) == ("uncertain", Decimal("0.0021"))
    assert attempt.error == "answered after its claim was lost"
    assert print_ not in asking.caller._cache.completions


@pytest.mark.parametrize("kept", [[False], [True, False]], ids=["before", "after it is recorded"])
async def test_a_claim_that_is_lost_before_the_call_sends_nothing(kept: list[bool]) -> None:
    """It waited long for its turn. Then the answer of who has the claim now is looked for."""
    asking = Asking(completion("yes"))
    asking.claims.kept = kept.copy()
    answer = await asked(asking)
    assert (answer.reply, answer.provenance.cached) == ("yes", False)
    unsent = asking.journal[: asking.journal.index("sleep 0.05")]
    assert "call" not in unsent
    assert [a.outcome for a in asking.ledger.history.attempts] == [
        *["unbilled"] * (len(kept) - 1),
        "billed",
    ]


async def test_who_gets_the_claim_late_looks_into_the_cache_once_more() -> None:
    """Between the look and the claim somebody else may have asked, been answered and gone."""
    asking = Asking()
    print_ = fingerprint(asking)

    class SlowClaims(MemoryClaims):
        @asynccontextmanager
        async def claim(self, fingerprint: str) -> AsyncIterator[Claim | None]:
            asking.time.now += 0.35
            asking.cache.completions[print_] = completion("theirs")
            yield self

    asking.asker._claims = SlowClaims()
    answer = await asked(asking)
    assert (answer.reply, answer.provenance.cached) == ("theirs", True)
    assert "call" not in asking.journal


async def test_a_long_error_is_cut_before_it_goes_into_the_ledger() -> None:
    asking = Asking(TransientError("x" * 100_000))
    with pytest.raises(TransientError):
        await asked(asking)
    assert len(asking.ledger.last.error or "") == 500


async def test_a_call_that_is_cancelled_stays_begun() -> None:
    class Hanging:
        async def complete(self, _request: object) -> Completion:
            await asyncio.Event().wait()
            raise AssertionError

    asking = Asking(provider=Hanging())
    task = asyncio.create_task(asked(asking))
    await until(lambda: "begin" in asking.journal)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert asking.ledger.last.outcome == "started"
    assert asking.ledger.history.uncertain == 1


@pytest.mark.parametrize(
    "answer", [completion("yes"), UncertainCall("cut off"), TransientError("refused")], ids=repr
)
async def test_without_an_unfit_reply_the_provider_is_never_asked_twice_for_one_ask(
    answer: Completion | Exception,
) -> None:
    asking = Asking(answer, completion("a second time"))
    with suppress(PipelineError):
        await asked(asking)
    assert len(asking.provider.requests) == 1


TROUBLES: list[tuple[list[Completion | Exception], list[str | None]]] = [
    ([completion("yes")], [None]),
    ([completion("unfit"), completion("yes")], [None]),
    ([UnfitCompletion("empty", "no text", completion()), completion("yes")], [None]),
    ([Throttled("wait", retry_after_s=1), completion("yes")], [None]),
    ([ProviderBlocked("no credit", retry_after_s=1), completion("yes")], ["no credit", None]),
    ([TransientError("refused")], ["refused"]),
    ([UncertainCall("cut off")], ["cut off"]),
    ([PermanentError("moderated")], [None]),
    ([CallRefused("a bad request")], [None]),
]


@pytest.mark.parametrize(("answers", "troubles"), TROUBLES, ids=repr)
async def test_whether_the_provider_serves_us_is_told(
    answers: list[Completion | Exception], troubles: list[str | None]
) -> None:
    asking = Asking(*answers)
    with suppress(PipelineError):
        await asked(asking)
    assert asking.troubles == troubles


async def test_an_answer_from_the_cache_tells_nothing_of_the_provider() -> None:
    asking = Asking()
    asking.cache.completions[fingerprint(asking)] = completion("kept")
    await asked(asking)
    assert asking.troubles == []


async def test_every_call_is_timed_once() -> None:
    asking = Asking(Throttled("429", retry_after_s=1), completion("yes"))
    await asked(asking)
    assert asking.sample("cardflow_model_call_seconds_count") == 2


async def test_the_key_is_no_part_of_the_request() -> None:
    asking = Asking(completion("yes"), provider_access=lambda: access(api_key=SECRET))
    await asked(asking)
    (request,) = asking.provider.requests
    assert SECRET.encode() not in request.body
    assert SECRET not in repr(asking.access)


async def test_who_comes_second_waits_for_the_answer_of_the_first_and_pays_nothing() -> None:
    asking = Asking(completion("yes"))
    print_ = fingerprint(asking)
    asking.time.pause = asyncio.Event()
    asking.claims.held.add(print_)  # Another replica is asking right now …
    second = asyncio.ensure_future(asked(asking))
    await until(lambda: any(step.startswith("sleep") for step in asking.journal))
    await asking.cache.put(print_, completion("theirs"))  # … and has its answer.
    asking.time.pause.set()
    answer = await second
    assert (answer.reply, answer.provenance.cached, answer.provenance.calls) == ("theirs", True, 0)
    assert "call" not in asking.journal


async def test_when_the_first_fails_the_second_asks_itself() -> None:
    asking = Asking(completion("yes"))
    print_ = fingerprint(asking)
    asking.time.pause = asyncio.Event()
    asking.claims.held.add(print_)
    second = asyncio.ensure_future(asked(asking))
    await until(lambda: any(step.startswith("sleep") for step in asking.journal))
    asking.claims.held.discard(print_)
    asking.time.pause.set()
    answer = await second
    assert (answer.reply, answer.provenance.cached) == ("yes", False)
