"""The rules of delivery against a real server: every message gets exactly one right answer."""

from __future__ import annotations

import asyncio
import json

import pytest
from delivering import BATCH, QUICK, Failing, Stage1, Wire, analyze, eventually
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import StreamConfig
from nats.js.errors import NotFoundError

from services.kernel import topology
from services.kernel.circumstances import Circumstances
from services.kernel.contracts.dead_letter import DeadLetter
from services.kernel.errors import (
    Outage,
    PermanentError,
    ReplyRejected,
    Throttled,
    TransientError,
)
from services.kernel.provisioning.provision import provision
from services.kernel.settings import NatsSettings
from services.kernel.stream.attempts import AttemptLedger
from services.kernel.stream.incoming import Incoming, Outgoing, read_delivery
from services.kernel.stream.retry import RetryPolicy
from services.kernel.stream.trace import Trace

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


async def test_a_result_is_published_before_its_message_is_acked(
    nc: Client, js: JetStreamContext
) -> None:
    stage = await Stage1(js, analyze).open()
    await stage.accept(body=b"payload")
    wire = await Wire.tapped(nc)
    await stage.deliver()
    await eventually(lambda: len(wire.seen) == 2)
    assert wire.order == ["terms", "+ACK"]
    assert await stage.analysis() == b"payload"
    await eventually(stage.is_settled)
    assert stage.count("published") == 1


async def test_a_result_that_is_there_already_counts_as_done(js: JetStreamContext) -> None:
    stage = await Stage1(js, analyze).open()
    await js.publish(topology.analyzed_subject(BATCH, "t1"), b"first")
    await stage.accept(body=b"second")
    await stage.deliver()
    assert await stage.analysis() == b"first"
    await eventually(stage.is_settled)
    assert stage.count("duplicate") == 1


async def test_a_handler_without_a_result_is_acked(js: JetStreamContext) -> None:
    async def store(_incoming: Incoming, _ledger: AttemptLedger) -> Outgoing | None:
        return None

    stage = await Stage1(js, store).open()
    await stage.accept()
    await stage.deliver()
    await eventually(stage.is_settled)
    assert stage.count("published") == 1
    assert await stage.analysis() is None


async def test_a_transient_error_is_tried_again_after_its_delay_and_counted(
    nc: Client, js: JetStreamContext
) -> None:
    policy = RetryPolicy(max_attempts=3, base_s=0.05, cap_s=10)
    handler = Failing(TransientError("reset"), TransientError("reset again"))
    stage = await Stage1(js, handler, policy=policy).open()
    await stage.accept()
    wire = await Wire.tapped(nc)
    await stage.deliver(times=3)
    await eventually(lambda: len(wire.answers) == 3)
    delays = [json.loads(answer.removeprefix(b"-NAK"))["delay"] for answer in wire.answers[:2]]
    assert delays == [50_000_000, 100_000_000]
    assert wire.answers[2] == b"+ACK"
    ledger = stage.ledger()
    await ledger.reopen()
    assert [a.error for a in ledger.history.attempts[:2]] == [
        "TransientError: reset",
        "TransientError: reset again",
    ]
    assert (handler.calls, stage.count("retried"), stage.count("published")) == (3, 2, 1)


async def test_after_the_last_attempt_a_message_is_a_dead_letter_with_its_story(
    nc: Client, js: JetStreamContext
) -> None:
    def cut_off(detail: str) -> TransientError:
        error = TransientError(detail)
        error.__cause__ = ValueError("line 1")
        return error

    handler = Failing(cut_off("one"), cut_off("two"), cut_off("three"))
    stage = await Stage1(js, handler).open()
    await stage.accept(body='{"term": "책"}'.encode())
    wire = await Wire.tapped(nc)
    await stage.deliver(times=3)
    await eventually(lambda: wire.order[-2:] == ["dead", "+ACK"])
    letter = await stage.letter()
    assert letter is not None
    assert (letter.reason, letter.error) == ("attempts_used_up", "TransientError")
    assert (letter.term, letter.message) == ("책", "three")
    assert letter.causes == ("ValueError: line 1",)
    assert letter.original_payload == '{"term": "책"}'.encode()
    assert letter.original_subject == topology.accepted_subject(BATCH, "t1")
    assert letter.history.count(0) == 3
    await eventually(stage.is_settled)
    assert stage.count("dead") == 1


async def test_a_reply_that_stayed_unfit_is_a_dead_letter_at_once(js: JetStreamContext) -> None:
    handler = Failing(ReplyRejected("schema", "no ipa"))
    stage = await Stage1(js, handler).open()
    await stage.accept()
    await stage.deliver()
    letter = await stage.letter()
    assert letter is not None
    assert (letter.reason, letter.message) == ("schema", "schema: no ipa")
    assert (handler.calls, stage.count("retried")) == (1, 0)


async def test_a_permanent_error_is_a_dead_letter_at_once(js: JetStreamContext) -> None:
    handler = Failing(PermanentError("refused by moderation", reason="moderation"))
    stage = await Stage1(js, handler).open()
    await stage.accept()
    await stage.deliver()
    letter = await stage.letter()
    assert letter is not None
    assert (letter.reason, letter.history.attempts) == ("moderation", ())
    await eventually(stage.is_settled)
    assert handler.calls == 1


@pytest.mark.parametrize(
    "error", [Outage("stream full"), Throttled("429", retry_after_s=0.01)], ids=repr
)
async def test_an_outage_uses_no_attempt_however_long_it_lasts(
    error: Exception, js: JetStreamContext
) -> None:
    handler = Failing(*[error] * (QUICK.max_attempts * 2))
    stage = await Stage1(js, handler).open()
    await stage.accept()
    await stage.deliver(times=QUICK.max_attempts * 2 + 1)
    assert await stage.analysis() is not None
    assert await stage.letter() is None
    await eventually(stage.is_settled)


async def test_the_pauses_grow_while_an_outage_lasts(nc: Client, js: JetStreamContext) -> None:
    policy = RetryPolicy(max_attempts=3, base_s=0.01, cap_s=0.08)
    stage = await Stage1(js, Failing(*[Outage("full")] * 5), policy=policy).open()
    await stage.accept()
    wire = await Wire.tapped(nc)
    await stage.deliver(times=5)
    await eventually(lambda: len(wire.answers) == 5)
    delays_ms = [json.loads(a.removeprefix(b"-NAK"))["delay"] / 1e6 for a in wire.answers]
    assert delays_ms == [10, 20, 40, 80, 80]


async def test_a_paid_result_is_held_until_its_stream_takes_it(
    nc: Client, js: JetStreamContext
) -> None:
    """The call is on record as billed and stays so; it is neither repeated nor given up."""
    handler = PaysOnce()
    stage = await Stage1(js, handler).open()
    info = await js.stream_info(topology.ANALYSES.name)
    wanted = StreamConfig.from_response(info.config.as_dict())
    await js.update_stream(info.config.evolve(max_bytes=1))
    await stage.accept()
    wire = await Wire.tapped(nc)
    delivering = asyncio.create_task(stage.deliver())
    await eventually(lambda: len(stage.held) >= 2)
    assert "ANALYSES" in (stage.held[0] or "") or "terms.analyzed" in (stage.held[0] or "")
    assert (wire.answers, await stage.letter()) == ([], None)
    await js.update_stream(wanted)
    await delivering
    assert await stage.analysis() is not None
    assert stage.held[-1] is None
    await eventually(stage.is_settled)
    assert handler.calls == 1


class PaysOnce:
    """A handler that makes one call, and fails the test at a second one."""

    def __init__(self) -> None:
        self.calls = 0

    async def __call__(self, incoming: Incoming, ledger: AttemptLedger, /) -> Outgoing:
        self.calls += 1
        await ledger.begin("fingerprint")
        await ledger.settle("billed")
        return await analyze(incoming)


async def redelivered_from_the_start(stage: Stage1) -> None:
    """The consumer is made anew, so that the whole stream is delivered again as if never seen."""
    await stage.js.delete_consumer(topology.TERMS.name, "stage1")
    await provision(stage.js, NatsSettings(stream_max_mib=64))
    await stage.open()


@pytest.mark.parametrize("error", [PermanentError("no", reason="moderation"), KeyError("a bug")])
async def test_a_dead_term_that_is_delivered_again_stays_as_it_is(
    error: Exception, nc: Client, js: JetStreamContext
) -> None:
    """Without a call, and without touching a letter that somebody may have decided on."""

    class Unfit:
        calls = 0

        async def __call__(self, _incoming: Incoming, ledger: AttemptLedger, /) -> Outgoing:
            await ledger.begin("fingerprint")
            self.calls += 1
            await ledger.settle("billed", error="unfit")
            raise error

    handler = Unfit()
    stage = await Stage1(js, handler, policy=RetryPolicy(1, 0.01, 0.01)).open()
    await stage.accept()
    await stage.deliver()
    before = await js.get_last_msg(topology.DEAD_LETTERS.name, "dead.stage1.b1.t1")
    await redelivered_from_the_start(stage)
    await stage.deliver()
    await eventually(stage.is_settled)
    after = await js.get_last_msg(topology.DEAD_LETTERS.name, "dead.stage1.b1.t1")
    assert (handler.calls, after.seq) == (1, before.seq)
    assert stage.count("duplicate") == 1


async def test_a_refusal_that_is_delivered_again_is_not_written_again(
    nc: Client, js: JetStreamContext
) -> None:
    stage = await Stage1(js, Failing(*[PermanentError("no", reason="refused")] * 2)).open()
    await stage.accept()
    await stage.deliver()
    before = await js.get_last_msg(topology.DEAD_LETTERS.name, "dead.stage1.b1.t1")
    await redelivered_from_the_start(stage)
    await stage.deliver()
    after = await js.get_last_msg(topology.DEAD_LETTERS.name, "dead.stage1.b1.t1")
    assert after.seq == before.seq


async def test_an_old_copy_of_a_message_that_was_sent_again_writes_no_letter(
    js: JetStreamContext,
) -> None:
    """A person replayed it while the copy was in hand: what becomes of it is decided there."""
    stage = await Stage1(js, Failing(PermanentError("no", reason="refused"))).open()
    await stage.accept()
    old_copy = await stage.fetch()
    await js.purge_stream(topology.TERMS.name, subject=topology.accepted_subject(BATCH, "t1"))
    await stage.accept(Cardflow_Replays="1")
    await stage.delivery(old_copy)
    assert (await stage.letter(), stage.count("duplicate")) == (None, 1)


async def test_a_finished_term_that_is_delivered_again_costs_nothing(
    nc: Client, js: JetStreamContext
) -> None:
    stage = await Stage1(js, PaysOnce()).open()
    await stage.accept()
    await stage.deliver()
    await redelivered_from_the_start(stage)
    await stage.deliver()
    await eventually(stage.is_settled)
    ledger = stage.ledger()
    await ledger.reopen()
    assert (ledger.history.calls, stage.count("duplicate")) == (1, 1)


async def test_a_term_of_a_cancelled_batch_ends_on_record_and_without_a_call(
    js: JetStreamContext,
) -> None:
    handler = PaysOnce()
    stage = await Stage1(js, handler, circumstances=Circumstances(cancelled={BATCH})).open()
    await stage.accept()
    await stage.deliver()
    await eventually(stage.is_settled)
    message = await js.get_last_msg(topology.DEAD_LETTERS.name, "cancelled.stage1.b1.t1")
    record = DeadLetter.model_validate_json(message.data or b"")
    assert (record.reason, record.original_payload) == ("cancelled", b'{"term": "x"}')
    assert (handler.calls, await stage.letter(), stage.count("cancelled")) == (0, None, 1)
    await redelivered_from_the_start(stage)
    await stage.deliver()
    await eventually(stage.is_settled)
    assert stage.count("duplicate") == 1


async def test_a_term_of_a_batch_over_its_budget_is_put_off_without_work_or_attempt(
    js: JetStreamContext,
) -> None:
    handler, circumstances = PaysOnce(), Circumstances()
    stage = await Stage1(js, handler, circumstances=circumstances).open()
    await stage.accept()
    await (await stage.fetch()).nak()
    circumstances.unaffordable.add(BATCH)
    await stage.deliver()
    assert (handler.calls, stage.count("deferred"), await stage.letter()) == (0, 1, None)
    circumstances.unaffordable.discard(BATCH)
    await stage.deliver()
    await eventually(stage.is_settled)
    ledger = stage.ledger()
    await ledger.reopen()
    assert (handler.calls, ledger.history.calls) == (1, 1)


async def test_a_batch_that_is_cancelled_before_the_call_pays_nothing(
    js: JetStreamContext,
) -> None:
    """The term waited for its turn to be asked for, and has a mark of its delivery by then."""
    cancelled: set[str] = set()

    async def waits(incoming: Incoming, ledger: AttemptLedger) -> Outgoing:
        cancelled.add(BATCH)
        await ledger.begin("fingerprint")
        return await analyze(incoming)

    stage = await Stage1(js, waits, circumstances=Circumstances(cancelled=cancelled)).open()
    await stage.accept()
    await (await stage.fetch()).nak()
    await stage.deliver()
    await eventually(stage.is_settled)
    message = await js.get_last_msg(topology.DEAD_LETTERS.name, "cancelled.stage1.b1.t1")
    record = DeadLetter.model_validate_json(message.data or b"")
    assert record.history.attempts == ()


async def test_what_is_paid_for_goes_on_when_its_batch_is_cancelled(js: JetStreamContext) -> None:
    """Its replica died between the answer and the publish: the rest of its way costs nothing."""
    stage = await Stage1(js, analyze, circumstances=Circumstances(cancelled={BATCH})).open()
    await stage.accept()
    message = await stage.fetch()
    dying = stage.ledger()
    await dying.begin("fingerprint")
    await dying.settle("billed")
    await message.nak()
    await stage.deliver()
    assert await stage.analysis() is not None
    await eventually(stage.is_settled)


async def test_what_is_finished_stays_when_its_batch_is_cancelled(js: JetStreamContext) -> None:
    stage = await Stage1(js, analyze, circumstances=Circumstances(cancelled={BATCH})).open()
    await js.publish(topology.analyzed_subject(BATCH, "t1"), b"finished before")
    await stage.accept()
    await stage.deliver()
    await eventually(stage.is_settled)
    with pytest.raises(NotFoundError):
        await js.get_last_msg(topology.DEAD_LETTERS.name, "cancelled.stage1.b1.t1")


@pytest.mark.parametrize("fails", [False, True])
async def test_who_was_taken_over_leaves_the_answer_to_the_other_hand(
    fails: bool, nc: Client, js: JetStreamContext
) -> None:
    """A replica that was cut off for longer than ack_wait: its message is with another by now."""

    async def cut_off(incoming: Incoming, ledger: AttemptLedger) -> Outgoing:
        await ledger.begin("fingerprint")
        other = stage.ledger()
        await other.reopen()
        await other.begin("fingerprint")
        await ledger.settle("billed")
        if fails:
            raise TransientError("and it failed, too")
        return await analyze(incoming)

    stage = await Stage1(js, cut_off).open()
    await stage.accept()
    wire = await Wire.tapped(nc)
    await stage.deliver()
    await nc.flush()
    assert wire.seen == []
    assert await stage.analysis() is None


async def test_an_unknown_exception_is_given_up_after_the_last_attempt(
    js: JetStreamContext,
) -> None:
    handler = Failing(*[KeyError("a bug of ours")] * 9)
    stage = await Stage1(js, handler).open()
    await stage.accept()
    await stage.deliver(times=3)
    letter = await stage.letter()
    assert letter is not None
    assert (letter.reason, letter.error) == ("unexpected_error", "KeyError")
    await eventually(stage.is_settled)
    assert handler.calls == 3


async def killed_while_handling(stage: Stage1, *, begin: bool = False) -> None:
    """What a process leaves behind that dies in the handler: an attempt, and no answer."""
    message = await stage.fetch()
    ledger = stage.ledger(replay=read_delivery(message).replay)
    await ledger.reopen()
    if message.metadata.num_delivered > 1:
        await ledger.mark_started()
    if begin:
        await ledger.begin("fingerprint")
    await message.nak()


async def test_a_message_that_ends_its_process_each_time_is_given_up_without_a_call(
    js: JetStreamContext,
) -> None:
    handler = Failing()
    stage = await Stage1(js, handler).open()
    await stage.accept()
    for _ in range(1 + QUICK.max_attempts):
        await killed_while_handling(stage)
    await stage.deliver()
    letter = await stage.letter()
    assert letter is not None
    assert letter.reason == "attempts_used_up"
    assert "ended its process" in letter.message
    assert letter.history.count(0) == QUICK.max_attempts
    assert handler.calls == 0
    await eventually(stage.is_settled)


async def test_naks_of_stopping_replicas_use_no_attempt(js: JetStreamContext) -> None:
    stage = await Stage1(js, analyze).open()
    await stage.accept()
    for _ in range(QUICK.max_attempts + 2):
        await (await stage.fetch()).nak()
    await stage.deliver()
    assert await stage.analysis() is not None
    assert await stage.letter() is None


async def test_a_redelivered_message_whose_result_exists_is_acked_without_a_call(
    js: JetStreamContext,
) -> None:
    handler = Failing()
    stage = await Stage1(js, handler).open()
    await stage.accept()
    await killed_while_handling(stage, begin=True)
    await js.publish(topology.analyzed_subject(BATCH, "t1"), b"done by another replica")
    await stage.deliver()
    assert handler.calls == 0
    await eventually(stage.is_settled)
    assert stage.count("duplicate") == 1


async def test_a_replayed_message_whose_result_exists_is_acked_without_a_call(
    js: JetStreamContext,
) -> None:
    handler = Failing()
    stage = await Stage1(js, handler).open()
    await js.publish(topology.analyzed_subject(BATCH, "t1"), b"done before")
    await stage.accept(Cardflow_Replays="1")
    await stage.deliver()
    await eventually(stage.is_settled)
    assert (handler.calls, stage.count("duplicate")) == (0, 1)


async def test_a_replay_counts_its_attempts_anew_and_says_so_downstream(
    js: JetStreamContext,
) -> None:
    handler = Failing(TransientError("1"), TransientError("2"), TransientError("3"))
    stage = await Stage1(js, handler).open()
    await stage.accept()
    await stage.deliver(times=3)
    assert await stage.letter() is not None
    await js.purge_stream(topology.TERMS.name)
    await stage.accept(Cardflow_Replays="1")
    await killed_while_handling(stage)
    await stage.deliver()
    raw = await js.get_last_msg(topology.ANALYSES.name, topology.analyzed_subject(BATCH, "t1"))
    assert (raw.headers or {})["Cardflow-Replays"] == "1"
    ledger = stage.ledger(replay=1)
    await ledger.reopen()
    assert (ledger.history.count(0), ledger.history.count(1)) == (3, 1)


@pytest.mark.parametrize("header", [None, TRACEPARENT], ids=["no trace", "a trace"])
async def test_the_trace_goes_on_with_a_span_of_our_own(
    header: str | None, js: JetStreamContext
) -> None:
    stage = await Stage1(js, analyze).open()
    await stage.accept(**({"traceparent": header} if header else {}))
    await stage.deliver()
    raw = await js.get_last_msg(topology.ANALYSES.name, topology.analyzed_subject(BATCH, "t1"))
    sent = Trace.of(raw.headers or {})
    assert sent.header() == (raw.headers or {})["traceparent"]
    if header:
        ours = Trace.of({"traceparent": header})
        assert sent.trace_id == ours.trace_id
        assert sent.span_id != ours.span_id


async def test_a_slow_message_is_kept_from_redelivery(nc: Client, js: JetStreamContext) -> None:
    await provision(js, NatsSettings(stream_max_mib=64, ack_wait_s=1))
    wire = await Wire.tapped(nc)

    async def slow(incoming: Incoming, _ledger: AttemptLedger) -> Outgoing:
        await eventually(lambda: wire.answers.count(b"+WPI") >= 8)
        return await analyze(incoming)

    stage = await Stage1(js, slow, ack_wait_s=1).open()
    await stage.accept()
    keep_alive = asyncio.create_task(stage.in_hand.keep_alive())
    await stage.deliver()
    keep_alive.cancel()
    info = await js.consumer_info(topology.TERMS.name, "stage1")
    assert info.num_redelivered == 0
    await eventually(stage.is_settled)
    assert await stage.analysis() is not None


async def test_what_waits_for_a_worker_is_kept_alive_and_handed_back_at_a_stop(
    nc: Client, js: JetStreamContext
) -> None:
    stage = await Stage1(js, analyze, ack_wait_s=0.03).open()
    await stage.accept("begun")
    await stage.accept("waiting")
    begun, waiting = await stage.fetch(), await stage.fetch()
    wire = await Wire.tapped(nc)
    stage.in_hand.fetched([begun, waiting])
    await stage.delivery(begun)
    keep_alive = asyncio.create_task(stage.in_hand.keep_alive())
    await eventually(lambda: wire.order[-1:] == ["+WPI"])
    keep_alive.cancel()
    await stage.in_hand.hand_back()
    await stage.in_hand.hand_back()
    again = await stage.fetch()
    assert again.subject == waiting.subject
    assert wire.answers.count(b"-NAK") == 1
    assert wire.answers[0] == b"+ACK"


async def test_when_even_the_dead_letter_cannot_be_written_the_message_stays(
    js: JetStreamContext,
) -> None:
    stage = await Stage1(js, Failing(PermanentError("no"), PermanentError("no"))).open()
    config = (await js.stream_info(topology.DEAD_LETTERS.name)).config
    await js.delete_stream(topology.DEAD_LETTERS.name)
    await stage.accept()
    message = await stage.fetch()
    await stage.delivery(message)
    assert not await stage.is_settled()
    await js.add_stream(config)
    await message.nak()
    await stage.deliver()
    assert await stage.letter() is not None
    await eventually(stage.is_settled)


async def test_a_result_that_no_server_takes_is_a_dead_letter(js: JetStreamContext) -> None:
    async def enormous(incoming: Incoming, _ledger: AttemptLedger) -> Outgoing:
        return Outgoing(topology.analyzed_subject(BATCH, "t1"), b"x" * (2 * topology.MIB))

    stage = await Stage1(js, enormous).open()
    await stage.accept()
    await stage.deliver()
    letter = await stage.letter()
    assert letter is not None
    assert letter.reason == "too_large"


@pytest.mark.parametrize(
    ("value", "replay"), [("2", 2), ("0", 0), ("", 0), ("-1", 0), ("x", 0), ("٣", 0)]
)
async def test_a_replay_header_that_is_no_number_counts_as_none(
    value: str, replay: int, js: JetStreamContext
) -> None:
    seen: list[int] = []

    async def note(incoming: Incoming, _ledger: AttemptLedger) -> Outgoing | None:
        seen.append(incoming.replay)
        return None

    stage = await Stage1(js, note).open()
    await stage.accept(Cardflow_Replays=value)
    await stage.deliver()
    assert seen == [replay]
