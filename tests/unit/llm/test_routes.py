"""Who is asked, who is not, and what one call's end means for all the others."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest
from asking_fakes import FakeProvider, FakeTime, Scripted, access, completion, until
from unit.pace_fakes import MemoryBucket
from unit.route_fakes import Pauses, route_on, routes_of

from services.kernel.errors import (
    CallRefused,
    PermanentError,
    ProviderBlocked,
    ReplyRejected,
    Throttled,
    TransientError,
    Unavailable,
    UncertainCall,
)
from services.kernel.fleet.health.health import Health
from services.kernel.llm.prompt import Inquiry, Prompt
from services.kernel.llm.provider import Completion, UnfitCompletion
from services.kernel.llm.route import Route
from services.kernel.llm.routes import OrderedRoutes
from services.kernel.metrics import Metrics

FIRST = access(model="test/first")
SECOND = access(model="test/second")


class Stage:
    """One replica with a first route and a fallback. Replicas with one bucket are one fleet."""

    def __init__(
        self,
        *answers: Scripted,
        instead: Iterable[Scripted] | None = None,
        bucket: MemoryBucket | None = None,
        time: FakeTime | None = None,
        stage: str = "stage1",
        requests_per_minute: float = 0,
    ) -> None:
        self.time = time or FakeTime()
        self.bucket = bucket or MemoryBucket()
        self.pauses = Pauses()
        self.troubles: list[str | None] = []
        self.metrics = Metrics(stage)
        self.provider = FakeProvider([], answers)
        self.fallback = FakeProvider([], instead or ())
        self.first = route_on(
            self.bucket,
            self.time.clock,
            FIRST,
            self.provider,
            stage=stage,
            metrics=self.metrics,
            note_trouble=self.troubles.append,
            requests_per_minute=requests_per_minute,
        )
        self.second = route_on(
            self.bucket, self.time.clock, SECOND, self.fallback, name="fallback1", stage=stage
        )
        routes = [self.first] if instead is None else [self.first, self.second]
        self.routes: OrderedRoutes = self.with_routes(routes)

    def with_routes(self, routes: list[Route]) -> OrderedRoutes:
        return routes_of(
            routes,
            self.time.clock,
            self.time.sleep,
            pauses=self.pauses,
            note_trouble=self.troubles.append,
        )

    @property
    def health(self) -> Health:
        return self.first.health

    async def ask(self, term: str = "책", *, model: str | None = None) -> Completion:
        inquiry = Inquiry(prompt(term, model), FIRST, 100, 0.0)
        async with self.routes.turn(inquiry, "normal") as turn:
            return await turn.complete(inquiry.request(turn.access))

    async def fail(self, times: int, error: type[Exception]) -> float:
        """The time of the last failure."""
        for nth in range(times):
            with pytest.raises(error):
                await self.ask(f"term {nth}")
        return self.time.now

    async def hear(self, *others: Stage) -> None:
        """What the others report is written, and heard of here."""
        for other in others:
            await other.health._write()
        await self.health._record.load()


def prompt(term: str, model: str | None = None) -> Prompt:
    return Prompt("analysis", "1", "system", "task", {}, {"term": term}, model=model)


def down(times: int) -> list[Scripted]:
    return [TransientError("connection refused") for _ in range(times)]


async def test_while_all_is_well_nothing_is_written_but_that_the_route_was_asked() -> None:
    stage = Stage(*[completion("yes")] * 3, instead=[])
    await stage.ask()
    await stage.health._write()
    assert stage.bucket.writes == 1
    assert (await stage.ask()).text == "yes"
    await stage.ask()
    assert stage.health._pending == []


async def test_a_cool_down_that_one_replica_was_told_holds_all_of_them_back() -> None:
    told = Stage(Throttled("429", retry_after_s=4))
    other = Stage(completion("yes"), bucket=told.bucket, time=told.time)
    await told.fail(1, Throttled)
    await other.hear(told)
    await other.ask()
    assert told.time.now == pytest.approx(1_004)


@pytest.mark.parametrize(("hint_s", "waited_s"), [(4, 4), (44, 44), (120, 45), (1e9, 45)])
async def test_no_hint_makes_the_fleet_wait_longer_than_45_seconds(
    hint_s: float, waited_s: float
) -> None:
    stage = Stage(Throttled("429", retry_after_s=hint_s), completion("yes"))
    await stage.fail(1, Throttled)
    await stage.ask()
    assert stage.time.now == pytest.approx(1_000 + waited_s)


async def test_after_a_cool_down_calls_begin_spread_over_a_while() -> None:
    stage = Stage(Throttled("429", retry_after_s=8), completion("yes"))
    stage.routes._jitter = lambda: 0.5
    await stage.fail(1, Throttled)
    await stage.ask()
    assert stage.time.now == pytest.approx(1_009)


async def test_of_several_hints_the_longest_counts() -> None:
    stage = Stage(completion("yes"))
    stage.health.cool_down(9, "429")
    stage.health.cool_down(3, "429")
    await stage.ask()
    assert stage.time.now == pytest.approx(1_009)


async def test_an_answer_that_says_no_call_is_left_closes_the_route_until_there_are_more() -> None:
    last = completion("last").model_copy(update={"exhausted_for_s": 6.0})
    stage = Stage(last, completion("yes"))
    await stage.ask()
    await stage.ask()
    assert stage.time.now == pytest.approx(1_006)


async def test_eight_failures_of_all_replicas_together_open_the_breaker_for_all() -> None:
    one = Stage(*down(5), completion("yes"))
    two = Stage(*down(3), bucket=one.bucket, time=one.time)
    await one.fail(5, TransientError)
    await two.hear(one)
    opened_at = await two.fail(3, TransientError)
    await one.hear(two)
    assert one.health.state() == two.health.state() == "open"
    assert (await one.ask()).text == "yes"
    assert one.time.now == pytest.approx(opened_at + 5)
    assert one.health.state() == "closed"


@pytest.mark.parametrize(
    "error",
    [
        TransientError("refused"),
        UncertainCall("cut off"),
        Unavailable("503", retry_after_s=5),
    ],
    ids=repr,
)
async def test_what_is_a_failure_of_the_provider(error: Exception) -> None:
    stage = Stage(*[error] * 8)
    await stage.fail(8, type(error))
    assert stage.health.state() == "open"


@pytest.mark.parametrize(
    "error",
    [
        Throttled("429", retry_after_s=0.01),
        UnfitCompletion("empty", "no text", completion()),
        ReplyRejected("empty", "no text"),
        PermanentError("moderated"),
    ],
    ids=repr,
)
async def test_what_is_none(error: Exception) -> None:
    stage = Stage(*[error] * 30)
    await stage.fail(30, type(error))
    assert stage.health.state() == "closed"


async def test_after_three_failures_in_a_row_calls_begin_one_after_the_other() -> None:
    stage = Stage(*down(3), *[completion("yes")] * 3)
    failed_at = await stage.fail(3, TransientError)
    inquiry = Inquiry(prompt("책"), FIRST, 100, 0.0)
    async with stage.routes.turn(inquiry, "normal"):
        assert stage.time.now == pytest.approx(failed_at + 0.5)
        async with stage.routes.turn(inquiry, "normal") as turn:
            assert stage.time.now == pytest.approx(failed_at + 1.0)
            await turn.complete(inquiry.request(turn.access))
    await stage.ask()
    assert stage.time.now == pytest.approx(failed_at + 1.0)


async def test_while_it_is_open_nobody_asks_and_one_probe_at_a_time_finds_out() -> None:
    stage = Stage(*down(8), Unavailable("503", retry_after_s=5), completion("yes"))
    other = Stage(completion("yes"), bucket=stage.bucket, time=stage.time)
    opened_at = await stage.fail(8, TransientError)
    with pytest.raises(Unavailable):
        await stage.ask()
    assert stage.time.now == pytest.approx(opened_at + 5)
    await stage.ask()
    assert stage.time.now == pytest.approx(opened_at + 15)  # Ten more, counted from the probe.
    await other.hear(stage)
    await other.ask()
    assert stage.time.now == pytest.approx(opened_at + 15)


async def test_while_one_replica_probes_another_waits() -> None:
    stage = Stage(*down(8))
    other = Stage(bucket=stage.bucket, time=stage.time)
    await stage.fail(8, TransientError)
    await other.hear(stage)
    stage.time.now += 5
    assert await stage.health.claim("mine", lasting_s=60)
    assert not await other.health.claim("theirs", lasting_s=60)
    stage.health.release_probe("mine")
    await other.hear(stage)
    assert await other.health.claim("theirs", lasting_s=60)


async def test_a_probe_that_was_not_sent_is_no_failure_of_its_term() -> None:
    stage = Stage(*down(9))
    await stage.fail(8, TransientError)
    with pytest.raises(Throttled):
        await stage.ask()


async def test_a_probe_that_was_cut_off_stays_uncertain() -> None:
    stage = Stage(*down(8), UncertainCall("cut off"))
    await stage.fail(8, TransientError)
    with pytest.raises(UncertainCall):
        await stage.ask()


async def test_a_probe_that_is_given_up_before_its_call_is_free_for_others() -> None:
    stage = Stage(*down(8))
    await stage.fail(8, TransientError)
    stage.time.now += 6
    inquiry = Inquiry(prompt("책"), FIRST, 100, 0.0)
    async with stage.routes.turn(inquiry, "normal"):
        assert stage.health.opens_at() > stage.time.now
    assert stage.health.opens_at() <= stage.time.now


async def test_a_call_that_got_its_permit_after_the_route_was_shut_goes_back_and_waits() -> None:
    stage = Stage(completion("yes"))
    pace = stage.first.pace
    pace._concurrency = 1
    async with pace.turn(1, "normal"):
        task = asyncio.create_task(stage.ask())
        await until(lambda: pace._giving.needed == 2)
        stage.health.cool_down(7, "429")
    await task
    assert stage.time.now == pytest.approx(1_007)


async def test_a_refused_key_shuts_the_route_and_the_stage_says_why() -> None:
    stage = Stage(ProviderBlocked("401: check the key", retry_after_s=30), completion("yes"))
    await stage.fail(1, ProviderBlocked)
    assert stage.health.state() == "open"
    assert stage.troubles[-1] == "401: check the key"
    await stage.ask()
    assert stage.time.now == pytest.approx(1_030)
    assert stage.troubles[-1] is None


async def test_the_third_question_refused_in_a_row_is_not_given_up_but_waits() -> None:
    stage = Stage(*[CallRefused("404: no such model")] * 4, completion("yes"))
    await stage.fail(2, CallRefused)
    with pytest.raises(Throttled, match="the model is gone"):
        await stage.ask("third")
    assert stage.health.state() == "open"
    with pytest.raises(Throttled):
        await stage.ask("third")
    assert stage.time.now == pytest.approx(1_030)
    assert (await stage.ask("third")).text == "yes"
    assert stage.time.now == pytest.approx(1_090)


async def test_refusals_of_one_stage_say_nothing_of_another_ones_questions() -> None:
    stage = Stage(*[CallRefused("400")] * 3)
    other = Stage(completion("yes"), bucket=stage.bucket, time=stage.time, stage="stage2")
    await stage.fail(2, CallRefused)
    with pytest.raises(Throttled):
        await stage.ask("third")
    await other.hear(stage)
    await other.ask()
    assert stage.time.now == 1_000


async def test_refusals_count_over_the_fleet_even_unheard_of() -> None:
    stage = Stage(*[CallRefused("400")] * 2)
    other = Stage(CallRefused("400"), bucket=stage.bucket, time=stage.time)
    await other.health._record.load()
    await stage.fail(2, CallRefused)
    with pytest.raises(Throttled):
        await other.ask("third")


async def test_a_shut_stage_is_paused_once_for_each_opening_and_no_fallback_means_none() -> None:
    stage = Stage(*down(9), completion("yes"))
    opened_at = await stage.fail(8, TransientError)
    with pytest.raises(Throttled):
        await stage.ask()
    await stage.ask()
    assert stage.pauses.ends == pytest.approx([opened_at + 5, opened_at + 15])


async def test_a_cool_down_pauses_nobody() -> None:
    stage = Stage(Throttled("429", retry_after_s=30), completion("yes"))
    await stage.fail(1, Throttled)
    await stage.ask()
    assert stage.pauses.ends == []


async def test_a_fallback_serves_while_the_first_is_shut_and_the_first_again_afterwards() -> None:
    stage = Stage(*down(8), completion("first"), instead=[completion("second")])
    opened_at = await stage.fail(8, TransientError)
    assert (await stage.ask()).text == "second"
    assert (stage.time.now, stage.pauses.ends) == (opened_at, [])
    stage.time.now += 5
    assert (await stage.ask()).text == "first"


async def test_a_fallback_is_asked_in_its_own_name_under_the_question_s_fingerprint() -> None:
    stage = Stage(*down(8), instead=[completion("second")])
    await stage.fail(8, TransientError)
    await stage.ask()
    (request,) = stage.fallback.requests
    assert request.model == "test/second"
    assert request.fingerprint == Inquiry(prompt("책"), FIRST, 100, 0.0).fingerprint


async def test_while_somebody_probes_the_first_the_fallback_serves_the_others() -> None:
    stage = Stage(*down(8), instead=[completion("second")])
    await stage.fail(8, TransientError)
    stage.time.now += 5
    assert await stage.health.claim("somebody", lasting_s=60)
    assert (await stage.ask()).text == "second"


@pytest.mark.parametrize(("hint_s", "served"), [(5, "first"), (6, "second")])
async def test_a_short_cool_down_is_waited_for_and_a_long_one_is_not(
    hint_s: float, served: str
) -> None:
    stage = Stage(
        Throttled("429", retry_after_s=hint_s), completion("first"), instead=[completion("second")]
    )
    await stage.fail(1, Throttled)
    assert (await stage.ask()).text == served


async def test_each_fallback_has_a_breaker_of_its_own() -> None:
    stage = Stage(*down(8), completion("first"), instead=down(8))
    opened_at = await stage.fail(8, TransientError)
    await stage.fail(8, TransientError)
    assert stage.second.health.state() == "open"
    assert (await stage.ask()).text == "first"
    assert stage.time.now == pytest.approx(opened_at + 5)


async def test_a_model_that_the_question_names_is_asked_and_no_other() -> None:
    stage = Stage(Throttled("429", retry_after_s=30), completion("named"), instead=[])
    await stage.fail(1, Throttled)
    assert (await stage.ask(model="test/named")).text == "named"
    assert stage.provider.requests[-1].model == "test/named"
    assert stage.time.now == pytest.approx(1_030)


async def test_a_refusal_teaches_a_stage_that_has_no_limit_of_its_own() -> None:
    stage = Stage(completion("yes"), Throttled("429", retry_after_s=1))
    await stage.ask()
    stage.time.now += 1
    await stage.fail(1, Throttled)
    assert stage.health.limit() > 0


@pytest.mark.parametrize(("limit", "learns"), [(0, True), (600, False)])
def test_a_stage_with_a_limit_takes_no_permit_of_the_route_s(limit: float, *, learns: bool) -> None:
    first = Stage(requests_per_minute=limit).first
    assert first.learns is learns
    assert first.paces == ([first.stage_pace, first.pace] if learns else [first.stage_pace])


async def test_without_the_bucket_a_replica_goes_by_what_it_knows_itself() -> None:
    stage = Stage(*down(8), completion("yes"))
    await stage.health._record.load()
    stage.bucket.is_away = True
    opened_at = await stage.fail(8, TransientError)
    assert stage.health.state() == "open"

    async def sleep(seconds: float) -> None:
        await stage.time.sleep(seconds)
        stage.bucket.is_away = (
            stage.time.now < opened_at + 6
        )  # Before that nobody can tell who probes.

    stage.routes._sleep = sleep
    assert (await stage.ask()).text == "yes"
    assert stage.time.now == pytest.approx(opened_at + 6, abs=0.1)
    assert stage.health.state() == "closed"
