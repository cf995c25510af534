"""The ledger of attempts on a real bucket: what a process leaves behind when it dies anywhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, cast

import pytest
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.errors import KeyNotFoundError
from nats.js.kv import KeyValue

from services.kernel import topology
from services.kernel.contracts.attempt import AttemptHistory
from services.kernel.contracts.provenance import Usage
from services.kernel.errors import BatchCancelled, Outage, PermanentError
from services.kernel.stream.attempt_store import AttemptStore
from services.kernel.stream.attempts import AlreadyDone, AttemptLedger, TakenOver
from services.kernel.stream.checkpoint import Checkpoint, NoCheckpoint
from services.kernel.stream.incoming import Identity

KEY = "stage1.b1.t1"
PRINT = "f" * 64


@dataclass(frozen=True)
class Paid:
    call_id: str | None = None
    model: str = "m/1"
    generation_id: str | None = "gen-1"
    usage: Usage = field(default_factory=lambda: Usage(cost_usd=Decimal("0.002")))


def paid(cost_usd: str) -> Paid:
    return Paid(usage=Usage(cost_usd=Decimal(cost_usd), prompt_tokens=7, completion_tokens=9))


@pytest.fixture
async def bucket(js: JetStreamContext) -> KeyValue:
    return await js.key_value(topology.ATTEMPTS.name)


def opened(
    bucket: KeyValue,
    *,
    replay: int = 0,
    done: bool = False,
    max_attempts: int = 5,
    cancelled: bool = False,
) -> AttemptLedger:
    async def has_ended() -> bool:
        return done

    return AttemptStore(bucket, "stage1").ledger(
        Identity("b1", "t1"),
        replay=replay,
        max_attempts=max_attempts,
        has_ended=has_ended,
        is_cancelled=lambda: cancelled,
    )


async def recorded(bucket: KeyValue) -> AttemptHistory:
    return AttemptHistory.model_validate_json((await bucket.get(KEY)).value or b"")


async def outcomes(bucket: KeyValue) -> list[str]:
    return [attempt.outcome for attempt in (await recorded(bucket)).attempts]


async def test_a_call_is_on_record_before_it_is_sent(bucket: KeyValue) -> None:
    ledger = opened(bucket)
    await ledger.begin(PRINT)
    [attempt] = (await recorded(bucket)).attempts
    assert (attempt.outcome, attempt.fingerprint, attempt.finished_at) == ("started", PRINT, None)
    assert ledger.in_attempt


async def test_a_settled_call_says_what_it_cost_and_who_served_it(bucket: KeyValue) -> None:
    ledger = opened(bucket)
    await ledger.begin(PRINT)
    await ledger.settle("billed", paid_for=paid("0.001"))
    history = await recorded(bucket)
    assert history == ledger.history
    [attempt] = history.attempts
    assert (attempt.outcome, attempt.generation_id, attempt.model) == ("billed", "gen-1", "m/1")
    assert (history.cost_usd, history.calls, history.uncertain) == (Decimal("0.001"), 1, 0)
    assert (attempt.prompt_tokens, attempt.completion_tokens) == (7, 9)
    assert attempt.finished_at is not None


@pytest.mark.parametrize("error", [None, "not_json: prose"])
async def test_the_last_attempt_is_the_last_unless_it_got_its_answer(
    error: str | None, bucket: KeyValue
) -> None:
    ledger = opened(bucket, max_attempts=1)
    await ledger.begin(PRINT)
    await ledger.settle("billed", error=error)
    again = opened(bucket, max_attempts=1)
    if error is None:
        await again.reopen()
        return
    with pytest.raises(PermanentError, match="given up after 1 attempts") as raised:
        await again.reopen()
    assert raised.value.reason == "attempts_used_up"


async def test_a_term_that_was_paid_for_has_its_attempts_anew_for_the_rest_of_its_way(
    bucket: KeyValue,
) -> None:
    ledger = opened(bucket, max_attempts=2)
    await ledger.begin(PRINT)
    await ledger.settle("unbilled")
    await ledger.begin(PRINT)
    await ledger.settle("billed")
    for _ in range(2):
        dying = opened(bucket, max_attempts=2)
        await dying.reopen()
        await dying.mark_started()
    with pytest.raises(PermanentError, match="given up after 2 attempts"):
        await opened(bucket, max_attempts=2).reopen()
    await opened(bucket, max_attempts=2, replay=1).reopen()


async def test_nothing_is_begun_for_a_cancelled_batch(bucket: KeyValue) -> None:
    with pytest.raises(BatchCancelled, match="b1"):
        await opened(bucket, cancelled=True).begin(PRINT)
    with pytest.raises(KeyNotFoundError):
        await bucket.get(KEY)


async def test_being_throttled_uses_no_attempt_and_the_next_call_is_one_of_its_own(
    bucket: KeyValue,
) -> None:
    ledger = opened(bucket)
    for _ in range(3):
        await ledger.begin(PRINT)
        await ledger.settle("throttled", error="429")
    assert (ledger.used, ledger.in_attempt) == (0, False)
    await ledger.begin(PRINT)
    await ledger.settle("billed")
    assert await outcomes(bucket) == ["throttled", "billed"]
    assert (await recorded(bucket)).attempts[0].times == 3
    assert ledger.used == 1


async def test_a_second_call_of_one_delivery_is_a_call_of_its_own(bucket: KeyValue) -> None:
    ledger = opened(bucket)
    await ledger.begin(PRINT)
    await ledger.settle("billed", paid_for=paid("0.001"), error="not_json: prose")
    await ledger.begin(PRINT, is_repair=True)
    await ledger.settle("billed", paid_for=paid("0.002"))
    history = await recorded(bucket)
    assert [a.fingerprint for a in history.attempts] == [PRINT, PRINT]
    assert [a.is_repair for a in history.attempts] == [False, True]
    assert (history.calls, history.cost_usd) == (2, Decimal("0.003"))


async def test_an_unfit_reply_of_this_delivery_counts_before_its_repair(bucket: KeyValue) -> None:
    ledger = opened(bucket, max_attempts=2)
    await ledger.begin(PRINT)
    assert ledger.has_attempt_left
    await ledger.settle("billed", error="not_json: prose")
    assert ledger.has_attempt_left
    await ledger.begin(PRINT, is_repair=True)
    await ledger.settle("billed", error="not_json: prose")
    assert not ledger.has_attempt_left


async def test_a_repair_is_left_to_the_hand_that_took_the_last_attempt(bucket: KeyValue) -> None:
    ledger = opened(bucket, max_attempts=2)
    await ledger.begin(PRINT)
    await ledger.settle("billed", error="not_json: prose")
    other = opened(bucket, max_attempts=2)
    await other.reopen()
    await other.mark_started()
    assert ledger.has_attempt_left  # As far as it knows.
    with pytest.raises(TakenOver, match="last attempt"):
        await ledger.begin(PRINT, is_repair=True)
    assert (await recorded(bucket)).count(0) == 2


async def test_only_a_call_can_be_uncertain(bucket: KeyValue) -> None:
    ledger = opened(bucket)
    await ledger.reopen()
    await ledger.mark_started()
    assert (await recorded(bucket)).uncertain == 0
    await ledger.begin(PRINT)
    assert (await recorded(bucket)).uncertain == 1
    await ledger.fail("KeyError: a bug before it was settled")
    assert (await recorded(bucket)).uncertain == 1


async def test_a_failure_is_noted_on_the_call_that_led_to_it(bucket: KeyValue) -> None:
    ledger = opened(bucket)
    await ledger.begin(PRINT)
    await ledger.settle("uncertain", error="cut off")
    await ledger.fail("UncertainCall: cut off")
    [attempt] = (await recorded(bucket)).attempts
    assert (attempt.outcome, attempt.error) == ("uncertain", "UncertainCall: cut off")


async def test_a_failure_in_the_middle_of_an_attempt_ends_it(bucket: KeyValue) -> None:
    ledger = opened(bucket)
    await ledger.reopen()
    await ledger.mark_started()
    await ledger.fail("KeyError: a bug")
    assert await outcomes(bucket) == ["failed"]
    assert ledger.used == 1


async def test_a_failure_without_any_call_is_an_attempt_too(bucket: KeyValue) -> None:
    await opened(bucket).fail("TransientError: reset")
    second = opened(bucket)
    await second.fail("TransientError: reset")
    assert await outcomes(bucket) == ["failed", "failed"]
    assert second.used == 2


async def test_what_an_earlier_delivery_left_is_counted(bucket: KeyValue) -> None:
    await opened(bucket).begin(PRINT)
    later = opened(bucket)
    await later.reopen()
    assert later.used == 1
    await later.mark_started()
    await later.mark_started()
    await later.begin(PRINT)
    await later.settle("unbilled")
    assert await outcomes(bucket) == ["uncertain", "unbilled"]
    assert (later.used, later.history.uncertain) == (2, 1)


async def test_a_first_delivery_finds_the_record_of_an_earlier_one_by_itself(
    bucket: KeyValue,
) -> None:
    await opened(bucket).begin(PRINT)
    ledger = opened(bucket)
    await ledger.begin(PRINT)
    assert await outcomes(bucket) == ["uncertain", "started"]
    assert ledger.used == 2


async def test_attempts_are_counted_anew_from_a_replay(bucket: KeyValue) -> None:
    for _ in range(3):
        await opened(bucket).fail("TransientError: reset")
    replayed = opened(bucket, replay=1)
    await replayed.begin(PRINT)
    assert replayed.used == 1
    assert len(replayed.history.attempts) == 4
    assert opened(bucket, replay=2).used == 0


@pytest.mark.parametrize("redelivered", [True, False])
async def test_nothing_is_begun_when_the_result_exists(redelivered: bool, bucket: KeyValue) -> None:
    await opened(bucket).begin(PRINT)
    ledger = opened(bucket, done=True)
    with pytest.raises(AlreadyDone):
        await (ledger.reopen() if redelivered else ledger.begin(PRINT))
    assert await outcomes(bucket) == ["started"]


async def test_a_first_call_does_not_ask_whether_it_is_done(bucket: KeyValue) -> None:
    await opened(bucket, done=True).begin(PRINT)
    assert await outcomes(bucket) == ["started"]


async def test_of_two_hands_the_later_one_takes_over_and_no_money_is_forgotten(
    bucket: KeyValue,
) -> None:
    first, second = opened(bucket), opened(bucket)
    await first.reopen()
    await second.reopen()
    await first.begin(PRINT)
    await second.begin(PRINT)
    await first.settle("billed", paid_for=paid("0.001"))
    await second.settle("billed", paid_for=paid("0.002"))
    with pytest.raises(TakenOver):
        await first.conclude()
    await second.conclude()
    history = await recorded(bucket)
    assert [a.outcome for a in history.attempts] == ["uncertain", "billed"]
    assert history.cost_usd == Decimal("0.003")


async def test_who_finds_that_another_hand_was_answered_meanwhile_does_not_ask(
    bucket: KeyValue,
) -> None:
    """What was answered before it looked is another matter: the answer may be lost or unfit now."""
    first, second, later = opened(bucket), opened(bucket), opened(bucket)
    await first.begin(PRINT)
    await second.reopen()
    await first.settle("billed", paid_for=paid("0.001"))
    with pytest.raises(TakenOver):
        await second.begin(PRINT)
    assert await outcomes(bucket) == ["billed"]
    await later.reopen()
    await later.begin(PRINT)
    assert await outcomes(bucket) == ["billed", "started"]


async def test_who_gives_a_term_up_takes_over_from_who_still_asks(bucket: KeyValue) -> None:
    first, second = opened(bucket), opened(bucket)
    await first.begin(PRINT)
    await second.reopen()
    await second.give_up("attempts_used_up")
    await first.settle("billed", paid_for=paid("0.001"))
    with pytest.raises(TakenOver):
        first.check_mine()
    history = await recorded(bucket)
    assert [(a.outcome, a.cost_usd) for a in history.attempts] == [("uncertain", Decimal("0.001"))]
    assert history.is_given_up(0)
    assert not history.is_given_up(1)


async def test_a_term_that_was_given_up_is_not_asked_for_and_not_published_by_another_hand(
    bucket: KeyValue,
) -> None:
    asks, has_its_answer, gives_up = opened(bucket), opened(bucket), opened(bucket)
    for ledger in (asks, has_its_answer, gives_up):
        await ledger.reopen()
    await has_its_answer.mark_started()
    await gives_up.fail("PermanentError: moderated")
    await gives_up.give_up("moderated")
    with pytest.raises(TakenOver):
        await asks.begin(PRINT)
    with pytest.raises(TakenOver):
        await has_its_answer.conclude()
    assert await outcomes(bucket) == ["failed", "failed"]


@pytest.mark.parametrize("is_cached", [True, False])
async def test_a_term_that_another_hand_has_the_answer_to_is_not_given_up(
    is_cached: bool, bucket: KeyValue
) -> None:
    gives_up, has_its_answer = opened(bucket), opened(bucket)
    await gives_up.begin(PRINT)
    await gives_up.settle("billed", error="not_json: prose")
    await has_its_answer.reopen()
    await has_its_answer.mark_started()
    if not is_cached:
        await has_its_answer.begin(PRINT)
        await has_its_answer.settle("billed", paid_for=paid("0.001"))
    await has_its_answer.conclude()
    with pytest.raises(TakenOver):
        await gives_up.give_up("not_json")
    assert not (await recorded(bucket)).is_given_up(0)
    assert await outcomes(bucket) == ["billed", "cached" if is_cached else "billed"]


async def test_an_answer_in_the_cache_makes_no_card_of_what_was_given_up(bucket: KeyValue) -> None:
    """An old copy, delivered as if for the first time; its dead letter was replayed meanwhile."""
    ledger = opened(bucket)
    await ledger.fail("PermanentError: moderated")
    await ledger.give_up("moderated")
    with pytest.raises(TakenOver):
        await opened(bucket).recover(Paid(call_id="another"))
    assert await outcomes(bucket) == ["failed"]


async def test_an_answer_in_the_cache_makes_no_card_of_what_another_copy_has_cancelled(
    bucket: KeyValue,
) -> None:
    cancelling, waiting = opened(bucket, cancelled=True), opened(bucket, cancelled=True)
    await waiting.recover(Paid(call_id="another"))
    await cancelling.reopen()
    await cancelling.give_up("cancelled")
    with pytest.raises(TakenOver):
        await waiting.conclude()
    with pytest.raises(TakenOver):
        await opened(bucket).recover(Paid(call_id="another"))


async def test_an_answer_that_was_known_before_keeps_nobody_from_giving_up(
    bucket: KeyValue,
) -> None:
    """Whoever had it is gone, and what was made of it can't be published, or is unfit by now."""
    ledger = opened(bucket)
    await ledger.begin(PRINT)
    await ledger.settle("billed", paid_for=paid("0.001"))
    later = opened(bucket)
    await later.reopen()
    assert later.is_answered
    await later.mark_started()
    await later.give_up("too_large")
    assert (await recorded(bucket)).is_given_up(0)


async def test_what_was_given_up_by_a_process_that_died_then_is_given_up_again(
    bucket: KeyValue,
) -> None:
    """Its dead letter was not written: with the reason that was decided on, without a call."""
    ledger = opened(bucket)
    await ledger.fail("PermanentError: moderated")
    await ledger.give_up("moderated")
    with pytest.raises(PermanentError, match="given up before") as raised:
        await opened(bucket).reopen()
    assert raised.value.reason == "moderated"
    await opened(bucket, replay=1).reopen()


async def test_the_last_attempt_of_another_hand_is_left_to_it(bucket: KeyValue) -> None:
    """This hand waited for its turn; meanwhile others have used up what there was."""
    waits = opened(bucket, max_attempts=2)
    await waits.begin(PRINT)
    await waits.settle("throttled", error="429")
    for _ in range(2):
        other = opened(bucket, max_attempts=2)
        await other.reopen()
        await other.mark_started()
    with pytest.raises(TakenOver):
        await waits.begin(PRINT)


async def test_nobody_elses_record_is_touched_by_giving_up_what_nobody_worked_on(
    bucket: KeyValue,
) -> None:
    await opened(bucket).give_up("not_korean")
    with pytest.raises(KeyNotFoundError):
        await bucket.get(KEY)


class LosingAnswers:
    """A bucket that does what it is asked, while the answers to the named requests are lost."""

    def __init__(self, bucket: KeyValue, *lost: str) -> None:
        self._bucket = bucket
        self._lost = list(lost)

    def __getattr__(self, name: str) -> Any:
        request = getattr(self._bucket, name)

        async def ask(*args: Any, **kwargs: Any) -> Any:
            answer = await request(*args, **kwargs)
            if name in self._lost:
                self._lost.remove(name)
                raise TimeoutError
            return answer

        return ask


async def test_a_write_whose_answer_was_lost_is_written_once(bucket: KeyValue) -> None:
    losing = cast("KeyValue", LosingAnswers(bucket, "create", "update", "update"))
    ledger = opened(losing, max_attempts=1)
    await ledger.begin(PRINT)
    await ledger.settle("throttled", error="429")
    await ledger.begin(PRINT)
    await ledger.settle("billed", paid_for=paid("0.001"))
    assert await outcomes(bucket) == ["throttled", "billed"]


async def test_a_write_that_fails_again_and_again_is_an_outage(bucket: KeyValue) -> None:
    ledger = opened(bucket)
    await ledger.begin(PRINT)
    later = opened(cast("KeyValue", LosingWrites(bucket)))
    with pytest.raises(Outage, match="can't be written"):
        await later.fail("TransientError: reset")


class LosingWrites:
    """A bucket that can be read, and whose updates are lost."""

    def __init__(self, bucket: KeyValue) -> None:
        self.get = bucket.get

    async def update(self, *_args: Any, **_kwargs: Any) -> int:
        raise TimeoutError


@pytest.mark.parametrize("redelivered", [True, False])
async def test_an_answer_in_the_cache_settles_the_call_that_paid_for_it(
    redelivered: bool, bucket: KeyValue
) -> None:
    paid_for = Paid(call_id=await opened(bucket).begin(PRINT))
    later = opened(bucket)
    if redelivered:
        await later.reopen()
        await later.mark_started()
    assert await later.recover(paid_for)
    assert await later.recover(paid_for)
    first = (await recorded(bucket)).attempts[0]
    assert (first.outcome, first.cost_usd, first.generation_id, first.model) == (
        "billed",
        Decimal("0.002"),
        "gen-1",
        "m/1",
    )


@pytest.mark.parametrize("call_id", ["another", "", None])
async def test_an_answer_that_others_paid_for_settles_nothing(
    call_id: str | None, bucket: KeyValue
) -> None:
    await opened(bucket).begin(PRINT)
    later = opened(bucket)
    await later.reopen()
    assert not await later.recover(Paid(call_id=call_id))
    assert await outcomes(bucket) == ["started"]


async def test_an_answer_in_the_cache_makes_no_card_of_a_term_that_has_ended(
    bucket: KeyValue,
) -> None:
    """Its stream is delivered again from the start, and another batch has paid for the same."""
    await opened(bucket).fail("PermanentError: moderated")
    with pytest.raises(AlreadyDone):
        await opened(bucket, done=True).recover(Paid(call_id="another"))
    assert not await opened(bucket, max_attempts=1).recover(Paid(call_id="another"))


async def test_a_mark_is_taken_back_and_a_call_is_not(bucket: KeyValue) -> None:
    ledger = opened(bucket)
    await ledger.take_back()
    await ledger.reopen()
    await ledger.mark_started()
    await ledger.take_back()
    await ledger.take_back()
    assert (await outcomes(bucket), ledger.used) == ([], 0)
    await ledger.begin(PRINT)
    await ledger.take_back()
    assert await outcomes(bucket) == ["started"]
    await ledger.settle("billed")
    await ledger.take_back()
    assert await outcomes(bucket) == ["billed"]


@pytest.mark.parametrize("purged", [True, False])
@pytest.mark.parametrize("redelivered", [True, False])
async def test_a_deleted_record_is_begun_anew(
    purged: bool, redelivered: bool, bucket: KeyValue
) -> None:
    await opened(bucket).begin(PRINT)
    await (bucket.purge(KEY) if purged else bucket.delete(KEY))
    ledger = opened(bucket)
    if redelivered:
        await ledger.reopen()
        assert ledger.used == 0
    await ledger.begin(PRINT)
    await ledger.settle("billed")
    assert await outcomes(bucket) == ["billed"]


async def test_a_bucket_that_is_away_is_an_outage(js: JetStreamContext, bucket: KeyValue) -> None:
    ledger = opened(bucket)
    await js.delete_stream(f"KV_{topology.ATTEMPTS.name}")
    with pytest.raises(Outage, match="can't be reached"):
        await ledger.begin(PRINT)
    with pytest.raises(Outage, match="can't be reached"):
        await ledger.reopen()


async def test_a_checkpoint_says_what_its_stream_holds(js: JetStreamContext) -> None:
    checkpoint = Checkpoint(js, topology.ANALYSES.name, topology.analyzed_subject)
    assert not await checkpoint.holds("b1", "t1")
    await js.publish(topology.analyzed_subject("b1", "t1"), b"x")
    assert await checkpoint.holds("b1", "t1")
    assert not await checkpoint.holds("b2", "t1")
    assert not await NoCheckpoint().holds("b1", "t1")


async def test_a_stream_that_cannot_say_is_an_outage_and_no_answer(
    nc: Client, js: JetStreamContext
) -> None:
    checkpoint = Checkpoint(nc.jetstream(timeout=0.2), "ANALYSES", topology.analyzed_subject)
    await js.delete_stream("ANALYSES")
    with pytest.raises(Outage, match="ANALYSES can't be asked"):
        await checkpoint.holds("b1", "t1")
