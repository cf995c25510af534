"""A term that was replayed and fails again is the same dead letter, with a longer history."""

from __future__ import annotations

from collections.abc import Container
from datetime import datetime

import pytest
from delivering import QUICK, Failing, Stage1, analyze
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from services.cli.letters.letters import Letter, Wanted, find_letter, read_letters
from services.cli.letters.replaying import replay
from services.ingest.handler import AcceptTerms, identify_submission
from services.kernel import topology
from services.kernel.circumstances import Circumstances
from services.kernel.contracts.identity import refusal_id
from services.kernel.errors import PermanentError, TransientError
from services.kernel.holding import Holding
from services.kernel.metrics import Metrics
from services.kernel.stream.attempt_store import AttemptStore
from services.kernel.stream.checkpoint import Checkpoint
from services.kernel.stream.delivery import Delivery, Handler
from services.kernel.stream.endings import Endings
from services.kernel.stream.in_hand import InHand
from services.kernel.stream.incoming import Incoming, Outgoing, identity_of_subject
from services.kernel.stream.lanes import Lanes
from services.kernel.stream.outgoing import Publisher

BATCH = "b1"
NEXT = {
    "ingest": (topology.TERMS, topology.accepted_subject),
    "stage1": (topology.ANALYSES, topology.analyzed_subject),
    "stage2": (topology.CARDS, topology.finished_subject),
}


async def deliver(
    js: JetStreamContext,
    service: topology.ServiceName,
    handle: Handler,
    times: int = 1,
    *,
    lane: topology.Lane | None = None,
    cancelled: Container[str] = (),
) -> None:
    """What the service does with the next messages of its stream, or of a lane."""
    stream, subject_of = NEXT[service]
    metrics = Metrics(service)
    publisher = Publisher(js, timeout_s=2)
    delivery = Delivery(
        service,
        handle,
        publisher=publisher,
        attempts=AttemptStore(await js.key_value(topology.ATTEMPTS.name), service),
        endings=Endings(js, service, Checkpoint(js, stream.name, subject_of)),
        lanes=Lanes(js, publisher, service),
        policy=QUICK,
        in_hand=InHand(metrics, ack_wait_s=20),
        holding=Holding(lambda _reason: None),
        metrics=metrics,
        circumstances=Circumstances(cancelled=cancelled),
        identify=identify_submission if service == "ingest" else identity_of_subject,
        jitter=lambda: 0.0,
    )
    durable = f"{service}-{lane}" if lane else service
    [source] = [c.stream for c in topology.consumers_of(service) if c.durable == durable]
    subscription = await js.pull_subscribe_bind(durable=durable, stream=source)
    for _ in range(times):
        [message] = await subscription.fetch(1, timeout=5)
        await delivery(message)
    await subscription.unsubscribe()


async def the_letter(js: JetStreamContext) -> Letter:
    [letter] = (await read_letters(js, Wanted())).readable
    return letter


async def first_sequence(_subject: str) -> int:
    return 1


async def finish(incoming: Incoming, _ledger: object) -> Outgoing:
    return Outgoing(topology.finished_subject(BATCH, incoming.subject.split(".")[-1]), b"cards")


async def replays_on(js: JetStreamContext, stream: topology.Stream, subject: str) -> int:
    message = await js.get_last_msg(stream.name, subject)
    return int((message.headers or {}).get(topology.REPLAYS, "0"))


async def test_a_term_that_dies_again_keeps_its_beginning_and_adds_to_its_history(
    js: JetStreamContext,
) -> None:
    stage = await Stage1(js, Failing(*[TransientError("reset")] * 9)).open()
    await stage.accept()
    first_at: datetime | None = None
    for replays in range(3):
        await stage.deliver(times=3)
        letter = await the_letter(js)
        first_at = first_at or letter.record.first_at
        assert letter.record.first_at == first_at
        assert letter.replays == replays
        history = letter.record.history
        assert [a.replay for a in history.attempts] == sorted([*range(replays + 1)] * 3)
        assert letter.record.last_at > first_at
        await replay(js, letter)
    await stage.deliver()
    assert await stage.analysis() == b'{"term": "x"}'
    assert await replays_on(js, topology.ANALYSES, topology.analyzed_subject(BATCH, "t1")) == 3
    assert (await read_letters(js, Wanted())).readable == []


async def test_a_submission_that_is_refused_again_is_the_same_refusal(
    js: JetStreamContext,
) -> None:
    payload = b'{"term": "book"}'
    await js.publish(topology.submit_subject(BATCH), payload)
    accept = AcceptTerms(first_sequence)
    first_at: datetime | None = None
    for replays in range(3):
        await deliver(js, "ingest", accept)
        letter = await the_letter(js)
        first_at = first_at or letter.record.first_at
        assert letter.address == f"ingest/{BATCH}/{refusal_id(payload)}"
        assert letter.record.reason == "not_korean"
        assert (letter.record.first_at, letter.replays) == (first_at, replays)
        assert len(letter.record.history.attempts) == replays
        await replay(js, letter)
    assert (await js.stream_info("SUBMISSIONS")).state.messages == 4


async def test_the_count_of_replays_is_carried_on_and_grows_in_a_later_stage(
    js: JetStreamContext,
) -> None:
    """stage 1 dies, replay 1; stage 2 dies, replay 2; the finished cards know of both."""
    await js.publish(topology.accepted_subject(BATCH, "t1"), b"{}")
    await deliver(js, "stage1", Failing(PermanentError("no")))
    await replay(js, await the_letter(js))
    await deliver(js, "stage1", analyze)
    analyzed = topology.analyzed_subject(BATCH, "t1")
    assert await replays_on(js, topology.ANALYSES, analyzed) == 1

    await deliver(js, "stage2", Failing(PermanentError("no")))
    letter = await the_letter(js)
    assert (letter.address, letter.replays) == (f"stage2/{BATCH}/t1", 1)
    await replay(js, letter)
    assert await replays_on(js, topology.ANALYSES, analyzed) == 2

    seen: list[int] = []

    async def see(incoming: Incoming, ledger: object) -> Outgoing:
        seen.append(incoming.replay)
        return await finish(incoming, ledger)

    await deliver(js, "stage2", see)
    assert seen == [2]
    finished = topology.finished_subject(BATCH, "t1")
    assert await replays_on(js, topology.CARDS, finished) == 2
    with pytest.raises(NotFoundError):
        await js.get_last_msg(topology.DEAD_LETTERS.name, letter.subject)


async def test_each_stage_has_a_beginning_of_its_own(js: JetStreamContext) -> None:
    await js.publish(topology.accepted_subject(BATCH, "t1"), b"{}")
    await deliver(js, "stage1", Failing(PermanentError("no")))
    dead_in_stage1 = await the_letter(js)
    await replay(js, dead_in_stage1)
    await deliver(js, "stage1", analyze)
    await deliver(js, "stage2", Failing(PermanentError("no")))
    dead_in_stage2 = await find_letter(js, f"stage2/{BATCH}/t1")
    assert topology.FIRST_AT not in dead_in_stage2.record.original_headers
    assert dead_in_stage2.record.first_at > dead_in_stage1.record.last_at
