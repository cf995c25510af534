"""Provisioning a real server: everything is made, nothing is made twice, drift is seen."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DeliverPolicy,
    DiscardPolicy,
    StorageType,
    StreamConfig,
)
from nats.js.errors import APIError, NotFoundError

from services.kernel import topology
from services.kernel.provisioning.drift import Drift
from services.kernel.provisioning.provision import provision
from services.kernel.settings import NatsSettings
from services.kernel.stream.outgoing import is_duplicate

SETTINGS = NatsSettings(stream_max_mib=64)
CONSUMERS = [c for service in topology.SERVICES for c in topology.consumers_of(service)]
NAMES = [s.name for s in topology.STREAMS] + [f"KV_{b.name}" for b in topology.BUCKETS]


@pytest.fixture
def empty(nc: Client) -> JetStreamContext:
    """A server that nobody has provisioned."""
    return nc.jetstream(timeout=5)


async def stream_names(js: JetStreamContext) -> set[str]:
    return {info.config.name or "" for info in await js.streams_info()}


def told(drifts: list[Drift]) -> set[tuple[str, str, str]]:
    return {(drift.kind, drift.name, drift.setting) for drift in drifts}


async def test_an_empty_server_gets_everything(empty: JetStreamContext) -> None:
    drifts = await provision(empty, SETTINGS)
    assert len(drifts) == len(NAMES) + len(CONSUMERS)
    assert all(drift.changed and drift.setting == "exists" for drift in drifts)
    assert "stream TERMS: created" in map(str, drifts)
    assert await stream_names(empty) == set(NAMES)
    for consumer in CONSUMERS:
        config = (await empty.consumer_info(consumer.stream, consumer.durable)).config
        assert config.ack_policy == AckPolicy.EXPLICIT
        assert (config.max_deliver, config.ack_wait) == (-1, SETTINGS.ack_wait_s)


async def test_doing_it_again_changes_nothing(js: JetStreamContext) -> None:
    assert await provision(js, SETTINGS) == []
    assert await provision(js, SETTINGS, check_only=True) == []


async def test_a_check_reports_and_creates_nothing(empty: JetStreamContext) -> None:
    drifts = await provision(empty, SETTINGS, check_only=True)
    assert len(drifts) == len(NAMES) + len(CONSUMERS)
    assert not any(drift.changed for drift in drifts)
    assert "consumer ingest: missing" in map(str, drifts)
    assert await stream_names(empty) == set()


@pytest.mark.parametrize(
    ("settings", "setting", "wanted"),
    [
        (NatsSettings(stream_max_mib=65), "max_bytes", 65 * topology.MIB),
        (NatsSettings(stream_max_mib=64, max_age_days=1), "max_age", 86_400.0),
    ],
)
async def test_a_changed_bound_is_reported_and_then_brought_up_to_date(
    settings: NatsSettings, setting: str, wanted: Any, js: JetStreamContext
) -> None:
    checked = await provision(js, settings, check_only=True)
    assert ("stream", "TERMS", setting) in told(checked)
    assert (await js.stream_info("TERMS")).config.max_bytes == 64 * topology.MIB
    [changed] = [d for d in await provision(js, settings) if d.name == "TERMS"]
    assert (changed.setting, changed.wanted, changed.changed) == (setting, wanted, True)
    assert getattr((await js.stream_info("TERMS")).config, setting) == wanted
    assert await provision(js, settings, check_only=True) == []


async def test_a_changed_ack_wait_reaches_the_consumers_that_exist(js: JetStreamContext) -> None:
    settings = NatsSettings(stream_max_mib=64, ack_wait_s=45)
    checked = await provision(js, settings, check_only=True)
    assert told(checked) == {("consumer", c.durable, "ack_wait") for c in CONSUMERS} | {
        ("bucket", "KV_CLAIMS", "max_age"),
        ("bucket", "KV_CLAIMS", "duplicate_window"),
    }
    assert "consumer ingest: ack_wait is 20.0, should be 45.0" in map(str, checked)
    await provision(js, settings)
    assert (await js.consumer_info("TERMS", "stage1")).config.ack_wait == 45


async def test_settings_that_a_library_wiped_are_put_back(js: JetStreamContext) -> None:
    config = (await js.stream_info("TERMS")).config
    await js.update_stream(
        config.evolve(
            discard=DiscardPolicy.OLD,
            discard_new_per_subject=False,
            max_msgs_per_subject=-1,
            max_age=0,
            allow_direct=False,
        )
    )
    checked = await provision(js, SETTINGS, check_only=True)
    wiped = {
        "discard",
        "discard_new_per_subject",
        "max_msgs_per_subject",
        "max_age",
        "allow_direct",
    }
    assert told(checked) == {("stream", "TERMS", setting) for setting in wiped}
    repaired = await provision(js, SETTINGS)
    assert told(repaired) == told(checked)
    assert await provision(js, SETTINGS, check_only=True) == []


async def test_a_missing_consumer_is_reported_and_made_again(js: JetStreamContext) -> None:
    await js.delete_consumer("ANALYSES", "stage2")
    [missing] = await provision(js, SETTINGS, check_only=True)
    assert str(missing) == "consumer stage2: missing"
    with pytest.raises(NotFoundError):
        await js.consumer_info("ANALYSES", "stage2")
    [made] = await provision(js, SETTINGS)
    assert str(made) == "consumer stage2: created"
    assert (await js.consumer_info("ANALYSES", "stage2")).name == "stage2"


async def test_a_missing_stream_is_made_again_with_its_consumer(js: JetStreamContext) -> None:
    await js.delete_stream("CARDS")
    assert told(await provision(js, SETTINGS)) == {
        ("stream", "CARDS", "exists"),
        ("consumer", "exporter", "exists"),
        ("consumer", "stage2", "exists"),  # Made anew, so that it fills CARDS again.
    }


async def test_a_consumer_that_reads_something_else_is_repaired(js: JetStreamContext) -> None:
    info = (await js.consumer_info("TERMS", "stage1")).config
    await js.add_consumer(
        "TERMS",
        ConsumerConfig(
            durable_name=info.durable_name,
            ack_policy=AckPolicy.EXPLICIT,
            filter_subject="terms.accepted.other.*",
            max_ack_pending=info.max_ack_pending,
            ack_wait=info.ack_wait,
        ),
    )
    [drift] = await provision(js, SETTINGS, check_only=True)
    assert (drift.name, drift.setting, drift.found) == ("stage1", "filter_subjects", None)
    await provision(js, SETTINGS)
    assert await provision(js, SETTINGS, check_only=True) == []


@pytest.mark.parametrize(
    "subject",
    [
        topology.accepted_subject("b1", "t1"),
        topology.analyzed_subject("b1", "t1"),
        topology.finished_subject("b1", "t1"),
    ],
)
async def test_the_first_write_wins_on_what_is_paid_for(subject: str, js: JetStreamContext) -> None:
    stored = await js.publish(subject, b"first")
    with pytest.raises(APIError) as refused:
        await js.publish(subject, b"second")
    assert is_duplicate(refused.value)
    kept = await js.get_last_msg(stored.stream, subject)
    assert (kept.data, kept.seq) == (b"first", stored.seq)


@pytest.mark.parametrize(
    "subject",
    [topology.batch_subject("b1", "progress"), topology.dead_subject("stage1", "b1", "t1")],
)
async def test_what_is_reported_keeps_its_newest_message(
    subject: str, js: JetStreamContext
) -> None:
    await js.publish(subject, b"first")
    stored = await js.publish(subject, b"second")
    info = await js.stream_info(stored.stream, subjects_filter=subject)
    assert info.state.subjects == {subject: 1}
    assert (await js.get_last_msg(stored.stream, subject)).data == b"second"


async def test_a_submission_is_taken_twice_and_refused_when_it_is_too_large(
    js: JetStreamContext,
) -> None:
    await js.publish("terms.submit", "책".encode())
    await js.publish("terms.submit", "책".encode())
    with pytest.raises(APIError, match="message size exceeds maximum allowed"):
        await js.publish("terms.submit.b1", b"x" * (topology.SUBMISSION_MAX_BYTES + 1))
    assert (await js.stream_info("SUBMISSIONS")).state.messages == 2


@pytest.mark.parametrize(
    ("lost", "feeder"), [("TERMS", "ingest"), ("ANALYSES", "stage1"), ("CARDS", "stage2")]
)
async def test_a_lost_stream_is_filled_again_by_the_service_that_writes_it(
    lost: str, feeder: topology.ServiceName, js: JetStreamContext
) -> None:
    consumer = topology.CONSUMERS[feeder]
    subject = {"SUBMISSIONS": "terms.submit.b1"}.get(consumer.stream)
    streams = {stream.name: stream for stream in topology.STREAMS}
    subject = subject or streams[consumer.stream].subjects[0].replace("*", "b1")
    await js.publish(subject, b"x")
    reader = await js.pull_subscribe_bind(consumer.durable, stream=consumer.stream)
    [message] = await reader.fetch(1, timeout=5)
    await message.ack_sync()
    await js.delete_stream(lost)
    repaired = await provision(js, SETTINGS)
    assert f"stream {lost}: created; filled again by {feeder}" in map(str, repaired)
    [again] = await reader.fetch(1, timeout=5)
    assert again.data == b"x"
    assert await provision(js, SETTINGS) == []


async def test_lost_lanes_are_filled_again_by_both_stages_that_read_them(
    js: JetStreamContext,
) -> None:
    for service in ("stage1", "stage2"):
        stream = topology.CONSUMERS[service].stream
        subject = topology.CONSUMERS[service].subjects[0].replace("*", "b1")
        await js.publish(subject, b"x")
        reader = await js.pull_subscribe_bind(service, stream=stream)
        [message] = await reader.fetch(1, timeout=5)
        await message.ack_sync()
    await js.delete_stream("LANES")
    repaired = list(map(str, await provision(js, SETTINGS)))
    assert "stream LANES: created; filled again by stage1 and stage2" in repaired
    assert (await js.consumer_info("TERMS", "stage1")).num_pending == 1
    assert (await js.consumer_info("ANALYSES", "stage2")).num_pending == 1
    assert await provision(js, SETTINGS) == []


async def test_a_copy_leaves_its_lane_with_its_ack_and_the_first_one_wins_until_then(
    js: JetStreamContext,
) -> None:
    subject = topology.lane_subject(topology.accepted_subject("b1", "t1"), "bulk")
    await js.publish(subject, b"first")
    with pytest.raises(APIError) as refused:
        await js.publish(subject, b"second")
    assert is_duplicate(refused.value)
    reader = await js.pull_subscribe_bind("stage1-bulk", stream="LANES")
    [message] = await reader.fetch(1, timeout=5)
    with pytest.raises(APIError):
        await js.publish(subject, b"second")
    assert message.data == b"first"
    await message.ack_sync()
    await js.publish(subject, b"second")


async def test_a_repair_that_was_broken_off_is_completed_by_the_next(
    js: JetStreamContext,
) -> None:
    """At its most delicate moment: the feeder is deleted, its stream is not yet made."""
    await js.publish("terms.submit.b1", b"x")
    await js.delete_stream("TERMS")
    await js.delete_consumer("SUBMISSIONS", "ingest")
    await provision(js, SETTINGS)
    assert (await js.consumer_info("SUBMISSIONS", "ingest")).num_pending == 1
    assert await provision(js, SETTINGS) == []


async def test_without_the_cache_nothing_is_delivered_again_to_be_paid_for(
    js: JetStreamContext,
) -> None:
    await js.publish(topology.accepted_subject("b1", "t1"), b"x")
    reader = await js.pull_subscribe_bind("stage1", stream="TERMS")
    [message] = await reader.fetch(1, timeout=5)
    await message.ack_sync()
    await js.delete_stream("ANALYSES")
    await js.delete_stream("KV_COMPLETIONS")
    told = [str(drift) for drift in await provision(js, SETTINGS)]
    assert any("ANALYSES: created; not filled again" in line for line in told)
    assert (await js.consumer_info("TERMS", "stage1")).num_pending == 0


async def test_what_the_server_refuses_to_change_is_reported_and_the_rest_is_changed(
    js: JetStreamContext,
) -> None:
    await js.delete_stream("BATCHES")
    await js.add_stream(
        StreamConfig(
            name="BATCHES",
            subjects=["batches.*.*", "more.batches"],
            storage=StorageType.MEMORY,
            discard=DiscardPolicy.NEW,
        )
    )
    drifts = {drift.setting: drift for drift in await provision(js, SETTINGS)}
    assert not drifts["storage"].changed
    assert "the server refuses that: " in drifts["storage"].note
    assert "storage is memory, should be file" in str(drifts["storage"])
    assert drifts["subjects"].changed
    assert drifts["max_msgs_per_subject"].changed
    config = (await js.stream_info("BATCHES")).config
    assert (config.subjects, config.max_msgs_per_subject) == (["batches.*.*"], 1)
    [left] = await provision(js, SETTINGS)
    assert (left.setting, left.changed, left.is_serious) == ("storage", False, False)


async def test_a_consumer_that_can_not_be_changed_is_made_anew_and_stays_paused(
    js: JetStreamContext,
) -> None:
    await js.publish(topology.accepted_subject("b1", "t1"), b"x")
    await js.delete_consumer("TERMS", "stage1")
    await js.add_consumer(
        "TERMS",
        ConsumerConfig(
            durable_name="stage1",
            deliver_policy=DeliverPolicy.NEW,
            ack_policy=AckPolicy.NONE,
            pause_until="2190-01-01T00:00:00Z",
        ),
    )
    repaired = await provision(js, SETTINGS)
    assert any("made anew, it delivers everything" in str(drift) for drift in repaired)
    info = await js.consumer_info("TERMS", "stage1")
    assert (info.num_pending, info.paused) == (1, True)
    assert await provision(js, SETTINGS) == []


async def test_bounds_are_left_alone_when_asked_to_and_promises_are_not(
    js: JetStreamContext,
) -> None:
    config = (await js.stream_info("TERMS")).config
    await js.update_stream(config.evolve(max_bytes=topology.MIB, discard_new_per_subject=False))
    info = (await js.consumer_info("TERMS", "stage1")).config
    await js.add_consumer(
        "TERMS", info.evolve(ack_wait=45, filter_subjects=["terms.accepted.b1.*"])
    )
    assert {drift.setting for drift in await provision(js, SETTINGS, bounds=False)} == {
        "discard_new_per_subject",
        "filter_subjects",
    }
    config = (await js.stream_info("TERMS")).config
    assert (config.max_bytes, config.discard_new_per_subject) == (topology.MIB, True)
    info = (await js.consumer_info("TERMS", "stage1")).config
    assert (info.ack_wait, info.filter_subjects or [info.filter_subject]) == (
        45,
        ["terms.accepted.*.*"],
    )
    assert {drift.setting for drift in await provision(js, SETTINGS)} == {"max_bytes", "ack_wait"}


async def test_several_provision_at_once_and_leave_everything_as_it_should_be(
    js: JetStreamContext,
) -> None:
    await js.publish("terms.submit.b1", b"x")
    await js.delete_stream("TERMS")
    await js.delete_stream("CARDS")
    await asyncio.gather(*(provision(js, SETTINGS) for _ in range(4)), return_exceptions=True)
    await provision(js, SETTINGS)
    assert await provision(js, SETTINGS) == []
    assert (await js.consumer_info("SUBMISSIONS", "ingest")).num_pending == 1
