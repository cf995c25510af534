"""Reading whole streams: exact counts, all messages in order, and following on."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing

import pytest
from delivering import eventually
from nats.aio.client import Client
from nats.js import JetStreamContext

from services.cli.machine.nats_server import free_port
from services.kernel import topology
from services.kernel.errors import SettingsError
from services.kernel.stream.reading import (
    BatchCounts,
    connected,
    count_batch,
    follow,
    last_message,
    messages_of,
    subjects_of,
    submission_subjects,
)


async def ingest_up_to_here(js: JetStreamContext) -> None:
    """Plays ingest: takes and acks every submission."""
    waiting = (await js.consumer_info("SUBMISSIONS", "ingest")).num_pending or 0
    subscription = await js.pull_subscribe_bind(durable="ingest", stream="SUBMISSIONS")
    while waiting:
        for message in await subscription.fetch(waiting):
            await message.ack_sync()
            waiting -= 1
    await subscription.unsubscribe()


async def test_subjects_come_with_their_counts(js: JetStreamContext) -> None:
    for subject in ("terms.submit.b1", "terms.submit.b1", "terms.submit.b2"):
        await js.publish(subject, b"x")
    assert await subjects_of(js, "SUBMISSIONS", "terms.submit.>") == {
        "terms.submit.b1": 2,
        "terms.submit.b2": 1,
    }
    assert await subjects_of(js, "SUBMISSIONS", "terms.submit.b3") == {}
    assert await subjects_of(js, "NO_SUCH_STREAM", ">") == {}


async def test_every_message_under_a_filter_is_read_once_in_order(js: JetStreamContext) -> None:
    count = 600  # More than two fetches.
    for number in range(count):
        await js.publish(topology.finished_subject("b1", f"t{number}"), str(number).encode())
        if number % 100 == 0:
            await js.publish(topology.finished_subject("b2", f"t{number}"), b"not ours")
    read = [m.data async for m in messages_of(js, "CARDS", "cards.finished.b1.*")]
    assert read == [str(number).encode() for number in range(count)]


async def test_reading_ends_when_what_was_counted_is_removed_meanwhile(
    js: JetStreamContext,
) -> None:
    count = 600
    for number in range(count):
        await js.publish(topology.finished_subject("b1", f"t{number}"), b"x")
    read = 0
    async with aclosing(messages_of(js, "CARDS", "cards.finished.b1.*")) as messages:
        async for _message in messages:
            if not read:
                await js.purge_stream("CARDS")
            read += 1
    assert 0 < read < count


async def test_reading_nothing_ends_at_once(js: JetStreamContext) -> None:
    assert [m async for m in messages_of(js, "CARDS", "cards.finished.b1.*")] == []
    assert [m async for m in messages_of(js, "NO_SUCH_STREAM", ">")] == []


@pytest.mark.parametrize("from_start", [True, False])
async def test_following_goes_on_with_what_comes_later(
    from_start: bool, js: JetStreamContext
) -> None:
    await js.publish(topology.batch_subject("b1", "opened"), b"before")
    seen: list[bytes] = []

    async def read() -> None:
        async with aclosing(
            follow(js, "BATCHES", "batches.*.*", from_start=from_start)
        ) as messages:
            async for message in messages:
                seen.append(message.data)
                if message.data == b"after":
                    return

    async def is_followed() -> bool:
        return bool(await js.consumers_info("BATCHES"))

    reading = asyncio.create_task(read())
    await eventually(is_followed)
    await js.publish(topology.batch_subject("b1", "completed"), b"after")
    await reading
    assert seen == ([b"before"] if from_start else []) + [b"after"]


async def test_the_last_message_is_the_newest_or_none(js: JetStreamContext) -> None:
    subject = topology.batch_subject("b1", "progress")
    assert await last_message(js, "BATCHES", subject) is None
    await js.publish(subject, b"1")
    await js.publish(subject, b"2")
    assert await last_message(js, "BATCHES", subject) == b"2"


async def test_a_batch_is_counted_from_what_the_streams_hold(js: JetStreamContext) -> None:
    for _ in range(5):
        await js.publish("terms.submit.b1", b"x")
    for id_ in ("t1", "t2", "t3", "t4"):
        await js.publish(topology.accepted_subject("b1", id_), b"x")
    for id_ in ("t1", "t2"):
        await js.publish(topology.analyzed_subject("b1", id_), b"x")
    await js.publish(topology.finished_subject("b1", "t1"), b"x")
    await js.publish(topology.dead_subject("ingest", "b1", "r1"), b"x")
    await js.publish(topology.dead_subject("stage1", "b1", "t3"), b"x")
    await js.publish(topology.finished_subject("b2", "t9"), b"another batch's")
    await js.publish(topology.cancelled_subject("stage1", "b2", "t8"), b"another batch's")
    before = await count_batch(js, "b1")
    assert before == BatchCounts(
        submitted=5,
        accepted=4,
        analyzed=2,
        finished=1,
        refused=1,
        dead_later=1,
        ingested=False,
    )
    assert (before.dead, before.in_flight, before.total, before.settled) == (2, 2, 5, False)
    await ingest_up_to_here(js)
    await js.publish(topology.finished_subject("b1", "t2"), b"x")
    await js.publish(topology.cancelled_subject("stage1", "b1", "t4"), b"x")
    after = await count_batch(js, "b1")
    assert (after.ingested, after.in_flight, after.settled) == (True, 0, True)
    assert (after.finished, after.cancelled, after.ended) == (2, 1, 5)


async def test_until_all_is_ingested_what_was_submitted_stands_in_for_the_total() -> None:
    counts = BatchCounts(
        submitted=9, accepted=3, analyzed=0, finished=0, refused=1, dead_later=0, ingested=False
    )
    assert counts.total == 9


async def test_the_default_batch_has_two_names(js: JetStreamContext) -> None:
    assert submission_subjects("default") == ["terms.submit", "terms.submit.default"]
    assert submission_subjects("b1") == ["terms.submit.b1"]
    await js.publish("terms.submit", b"x")
    await js.publish("terms.submit.default", b"x")
    assert (await count_batch(js, "default")).submitted == 2


async def test_without_a_consumer_nothing_counts_as_ingested(js: JetStreamContext) -> None:
    await js.publish("terms.submit.b1", b"x")
    await js.delete_consumer("SUBMISSIONS", "ingest")
    assert not (await count_batch(js, "b1")).ingested


async def test_a_command_is_connected_and_closes_behind_itself(nats_server: str) -> None:
    kept: Client
    async with connected(nats_server) as kept:
        assert kept.is_connected
    assert kept.is_closed


async def test_without_a_server_a_command_says_where_it_looked() -> None:
    nobody = [f"nats://127.0.0.1:{free_port()}" for _ in range(2)]
    started = time.monotonic()
    with pytest.raises(SettingsError, match="no NATS server at") as refused:
        async with connected(",".join(nobody)):
            pass
    assert time.monotonic() - started < 2
    assert nobody[0] in str(refused.value)
    assert "cardflow up" in str(refused.value)


async def test_one_server_of_several_is_enough(nats_server: str) -> None:
    async with connected(f"nats://127.0.0.1:{free_port()},{nats_server}") as nc:
        assert nc.is_connected
