"""Lanes on a real server: what is left to them, what overtakes, what a death in between leaves."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

import pytest
from delivering import BATCH, eventually
from nats.js import JetStreamContext
from nats.js.api import RawStreamMsg
from pipeline_by_hand import cardflow
from test_replayed_deliveries import deliver, first_sequence, the_letter
from unit.term_samples import accepted, analyzed

from services.cli.accounts.evidence import read_batches
from services.cli.letters.editing import replay_edited
from services.cli.letters.replaying import replay
from services.ingest.handler import AcceptTerms
from services.kernel import topology
from services.kernel.contracts.analysis import TermAnalyzed
from services.kernel.contracts.batch import BatchCancelled
from services.kernel.contracts.term import Priority, TermAccepted
from services.kernel.errors import PermanentError
from services.kernel.provisioning.pausing import consumer_state, pause, paused_services, resume
from services.kernel.provisioning.provision import provision
from services.kernel.settings import NatsSettings
from services.kernel.stream.incoming import Incoming, Outgoing
from services.kernel.stream.reading import subjects_of

SETTINGS = NatsSettings(stream_max_mib=64)
TERM = accepted("책")
ACCEPTED = topology.accepted_subject(BATCH, TERM.term_id)
ANALYZED = topology.analyzed_subject(BATCH, TERM.term_id)
LANES: dict[tuple[str, topology.Lane], str] = {
    (stage, lane): topology.lane_subject(source, lane)
    for stage, source in (("stage1", ACCEPTED), ("stage2", ANALYZED))
    for lane in ("urgent", "bulk")
}

Handle = Callable[[Incoming, object], Awaitable[Outgoing]]


async def analyze(incoming: Incoming, _ledger: object = None) -> Outgoing:
    """As stage 1 does, without a model."""
    term = TermAccepted.from_bytes(incoming.data)
    event = analyzed(accepted_as=term)
    subject = topology.analyzed_subject(term.batch, term.term_id)
    return Outgoing(subject, event.to_bytes(), term.priority)


async def refuse(_incoming: Incoming, _ledger: object) -> Outgoing:
    raise AssertionError("worked on")


async def submit(js: JetStreamContext, priority: Priority, **fields: object) -> None:
    event = {"term": "책", "priority": priority, **fields}
    body = json.dumps(event, ensure_ascii=False).encode()
    await js.publish(topology.submit_subject(BATCH), body)


async def ingest(js: JetStreamContext, times: int = 1) -> None:
    await deliver(js, "ingest", AcceptTerms(first_sequence), times)


async def accept(js: JetStreamContext, priority: Priority, *, copied: bool = True) -> None:
    """What ingest leaves behind; not `copied`: it died before it put the copy into the lane."""
    body = accepted("책", priority=priority).to_bytes()
    headers = {} if priority == "normal" else {topology.PRIORITY: priority}
    await js.publish(ACCEPTED, body, headers=headers)
    if priority == "urgent" and copied:
        await js.publish(LANES["stage1", "urgent"], body)


async def in_lanes(js: JetStreamContext) -> list[str]:
    return sorted(await subjects_of(js, "LANES", "lanes.>"))


async def standing_at(js: JetStreamContext, subject: str) -> RawStreamMsg:
    return await js.get_last_msg(topology.LANES.name, subject)


async def waiting(js: JetStreamContext, durable: str) -> int:
    """Messages that a consumer has not answered; an ack takes a moment to arrive."""
    stream = "TERMS" if durable == "stage1" else "LANES"
    info = await js.consumer_info(stream, durable)
    return (info.num_pending or 0) + (info.num_ack_pending or 0)


def nothing_waits(js: JetStreamContext, durable: str) -> Callable[[], Awaitable[bool]]:
    async def is_so() -> bool:
        return await waiting(js, durable) == 0

    return is_so


# Writing


@pytest.mark.parametrize(
    ("priority", "lanes"), [("urgent", [LANES["stage1", "urgent"]]), ("bulk", []), ("normal", [])]
)
async def test_only_an_urgent_term_has_its_copy_from_who_accepts_it(
    priority: Priority, lanes: list[str], js: JetStreamContext
) -> None:
    await submit(js, priority)
    await ingest(js)
    assert await in_lanes(js) == lanes
    event = await js.get_last_msg("TERMS", ACCEPTED)
    marked = (event.headers or {}).get(topology.PRIORITY, "normal")
    assert (marked, TermAccepted.from_bytes(event.data or b"").priority) == (priority, priority)
    for subject in lanes:
        assert (await standing_at(js, subject)).data == event.data


async def test_a_normal_term_costs_no_further_write(js: JetStreamContext) -> None:
    await submit(js, "normal")
    await ingest(js)
    await deliver(js, "stage1", analyze)
    written = {info.config.name: info.state.last_seq for info in await js.streams_info()}
    assert {name: count for name, count in written.items() if count} == {
        "SUBMISSIONS": 1,
        "TERMS": 1,
        "ANALYSES": 1,
    }


async def test_a_copy_that_a_death_left_out_comes_with_the_redelivery(js: JetStreamContext) -> None:
    """Killed between checkpoint and lane: ingest finds its term accepted, stage 1 the analysis."""
    await submit(js, "urgent")
    await accept(js, "urgent", copied=False)
    await ingest(js)
    assert await in_lanes(js) == [LANES["stage1", "urgent"]]

    await js.publish(
        ANALYZED,
        analyzed(accepted_as=accepted("책", priority="urgent")).to_bytes(),
        headers={topology.PRIORITY: "urgent"},
    )
    reader = await js.pull_subscribe_bind("stage1-urgent", stream="LANES")
    [begun] = await reader.fetch(1, timeout=5)
    await begun.nak()
    await deliver(js, "stage1", refuse, lane="urgent")
    await eventually(nothing_waits(js, "stage1-urgent"))
    assert await in_lanes(js) == [LANES["stage2", "urgent"]]


async def test_a_term_that_comes_again_as_urgent_becomes_so_and_stays_what_it_was(
    js: JetStreamContext,
) -> None:
    await submit(js, "normal", position=4)
    await submit(js, "urgent", position=9)
    await submit(js, "bulk", position=10)
    await ingest(js, times=3)
    assert await in_lanes(js) == [LANES["stage1", "urgent"]]
    copy = TermAccepted.from_bytes((await standing_at(js, LANES["stage1", "urgent"])).data or b"")
    assert (copy.priority, copy.position) == ("urgent", 4)

    await deliver(js, "stage1", analyze, lane="urgent")
    await deliver(js, "stage1", analyze)  # The same term from the main consumer.
    assert (await js.stream_info("ANALYSES")).state.messages == 1
    copy = await standing_at(js, LANES["stage2", "urgent"])
    assert TermAnalyzed.from_bytes(copy.data or b"").accepted.position == 4
    await eventually(nothing_waits(js, "stage1"))


# Leaving


@pytest.mark.parametrize("lane", ["urgent", "bulk"])
async def test_the_main_consumer_leaves_a_term_to_its_lane(
    lane: topology.Lane, js: JetStreamContext
) -> None:
    await accept(js, lane, copied=False)
    await deliver(js, "stage1", refuse)
    await eventually(nothing_waits(js, "stage1"))
    assert await in_lanes(js) == [LANES["stage1", lane]]
    await deliver(js, "stage1", analyze, lane=lane)
    assert (await js.stream_info("ANALYSES")).state.messages == 1
    await eventually(nothing_waits(js, f"stage1-{lane}"))
    assert LANES["stage1", lane] not in await in_lanes(js)


async def test_what_is_in_its_lane_or_done_is_acknowledged_alone(js: JetStreamContext) -> None:
    await accept(js, "urgent")
    await deliver(js, "stage1", refuse)
    assert await in_lanes(js) == [LANES["stage1", "urgent"]]
    await deliver(js, "stage1", analyze, lane="urgent")
    await js.delete_consumer("TERMS", "stage1")
    await provision(js, SETTINGS)  # Made anew, it delivers everything again.
    await deliver(js, "stage1", refuse)
    await eventually(nothing_waits(js, "stage1"))
    assert await in_lanes(js) == [LANES["stage2", "urgent"]]


async def test_what_is_not_marked_is_worked_on_where_it_is(js: JetStreamContext) -> None:
    """As an earlier release wrote it: no copy, no mark, and not lost."""
    await js.publish(ACCEPTED, accepted("책", priority="bulk").to_bytes())
    await deliver(js, "stage1", analyze)
    assert (await js.stream_info("ANALYSES")).state.messages == 1


async def test_a_publishers_own_header_moves_no_submission(js: JetStreamContext) -> None:
    headers = {topology.PRIORITY: "urgent"}
    await js.publish(topology.submit_subject(BATCH), "책".encode(), headers=headers)
    await ingest(js)
    assert (await js.stream_info("TERMS")).state.messages == 1
    assert await in_lanes(js) == []


# Dead letters


async def die(_incoming: Incoming, _ledger: object) -> Outgoing:
    raise PermanentError("no")


async def test_the_dead_letter_of_a_copy_is_that_of_its_term_and_goes_first_when_replayed(
    js: JetStreamContext,
) -> None:
    await accept(js, "urgent")
    await deliver(js, "stage1", die, lane="urgent")
    letter = await the_letter(js)
    assert letter.record.original_subject == ACCEPTED
    await eventually(nothing_waits(js, "stage1-urgent"))
    assert await replay(js, letter) == "replayed"
    assert (await standing_at(js, LANES["stage1", "urgent"])).headers[topology.REPLAYS] == "1"
    await deliver(js, "stage1", die, lane="urgent")
    again = await the_letter(js)
    assert (again.replays, again.record.first_at) == (1, letter.record.first_at)
    await eventually(nothing_waits(js, "stage1-urgent"))
    edited = accepted("책", priority="urgent", hint="a book").to_bytes()
    assert await replay_edited(js, again, edited, at=again.record.last_at) == "replayed"
    await deliver(js, "stage1", analyze, lane="urgent")
    event = TermAnalyzed.from_bytes((await js.get_last_msg("ANALYSES", ANALYZED)).data or b"")
    assert event.accepted.hint == "a book"


async def test_a_replay_that_was_cut_off_puts_the_copy_into_the_lane_when_it_is_repeated(
    js: JetStreamContext,
) -> None:
    await accept(js, "urgent")
    await deliver(js, "stage1", die, lane="urgent")
    letter = await the_letter(js)
    await eventually(nothing_waits(js, "stage1-urgent"))
    await js.purge_stream("TERMS", subject=ACCEPTED)
    headers = {topology.REPLAYS: "1", topology.PRIORITY: "urgent"}
    await js.publish(ACCEPTED, letter.record.original_payload, headers=headers)
    assert await replay(js, letter) == "replayed_before"
    assert (await standing_at(js, LANES["stage1", "urgent"])).headers[topology.REPLAYS] == "1"


async def test_a_replay_waits_for_the_copy_of_an_earlier_one_to_leave(
    js: JetStreamContext,
) -> None:
    """Its acknowledgement was lost: it would go with it, and the replay with it."""
    await accept(js, "bulk")
    await deliver(js, "stage1", refuse)
    reader = await js.pull_subscribe_bind("stage1-bulk", stream="LANES")
    [earlier] = await reader.fetch(1, timeout=5)
    await js.purge_stream("TERMS", subject=ACCEPTED)
    headers = {topology.REPLAYS: "1", topology.PRIORITY: "bulk"}
    await js.publish(ACCEPTED, accepted("책", priority="bulk").to_bytes(), headers=headers)
    await deliver(js, "stage1", refuse)
    assert await waiting(js, "stage1") == 1
    await earlier.ack_sync()
    await deliver(js, "stage1", refuse)
    await eventually(nothing_waits(js, "stage1"))
    assert (await standing_at(js, LANES["stage1", "bulk"])).headers[topology.REPLAYS] == "1"


# Who has to know of them


async def test_a_pause_holds_for_the_lanes_also_when_they_are_made_anew(
    js: JetStreamContext,
) -> None:
    await accept(js, "urgent")
    await pause(js, "stage1")
    for consumer in topology.consumers_of("stage1"):
        assert (await js.consumer_info(consumer.stream, consumer.durable)).config.pause_until
    await js.delete_stream("LANES")
    assert list(await paused_services(js)) == ["stage1"]
    await provision(js, SETTINGS)
    assert list(await paused_services(js)) == ["stage1"]
    assert (await js.consumer_info("LANES", "stage1-bulk")).config.pause_until
    assert not (await js.consumer_info("LANES", "stage2-bulk")).config.pause_until
    await accept_again_in_lane(js)
    reader = await js.pull_subscribe_bind("stage1-urgent", stream="LANES")
    with pytest.raises(TimeoutError):
        await reader.fetch(1, timeout=0.5)
    assert await resume(js, "stage1")
    assert len(await reader.fetch(1, timeout=5)) == 1
    assert await paused_services(js) == {}


async def accept_again_in_lane(js: JetStreamContext) -> None:
    await js.publish(LANES["stage1", "urgent"], accepted("책", priority="urgent").to_bytes())


async def test_what_waits_in_a_lane_is_open_for_drain_and_awaited_for_the_audit(
    nats_server: str, js: JetStreamContext
) -> None:
    await submit(js, "bulk")
    await ingest(js)
    await deliver(js, "stage1", refuse)
    await eventually(nothing_waits(js, "stage1"))
    assert (await consumer_state(js, "stage1")).open == 1
    [record] = await read_batches(js, BATCH)
    assert record.awaited == {TERM.term_id}
    audited = await cardflow("audit", BATCH, "--nats", nats_server, "--json")
    assert audited.exit_code == 0, audited.output
    await js.purge_stream("LANES")
    [record] = await read_batches(js, BATCH)
    assert record.awaited == frozenset()


async def test_a_term_of_a_cancelled_batch_is_put_on_record_by_its_lane(
    js: JetStreamContext,
) -> None:
    await accept(js, "bulk")
    event = BatchCancelled(batch=TERM.batch, cancelled_at=TERM.submitted_at)
    await js.publish(topology.batch_subject(BATCH, "cancelled"), event.to_bytes())
    await deliver(js, "stage1", refuse, cancelled={BATCH})
    await deliver(js, "stage1", refuse, lane="bulk", cancelled={BATCH})
    cancelled = topology.cancelled_subject("stage1", BATCH, TERM.term_id)
    assert (await js.get_last_msg("DEAD_LETTERS", cancelled)).seq == 1
    await eventually(nothing_waits(js, "stage1-bulk"))
