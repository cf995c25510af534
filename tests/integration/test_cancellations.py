"""Cancelled batches on a real server: heard at once, and found by whoever was not there."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import nats
import structlog
from delivering import eventually
from nats.aio.client import Client
from nats.js import JetStreamContext

from services.kernel import topology
from services.kernel.contracts.base import Batch
from services.kernel.contracts.batch import BatchCancelled
from services.kernel.stream.cancellations import Cancellations

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)


async def say(js: JetStreamContext, batch: str, *, undone: bool = False) -> None:
    event = BatchCancelled(
        batch=Batch(batch), cancelled_at=NOON, undone_at=NOON if undone else None
    )
    await js.publish(topology.batch_subject(batch, "cancelled"), event.to_bytes())


async def listening(nc: Client, js: JetStreamContext) -> Cancellations:
    cancelled = Cancellations(js)
    await cancelled.listen(nc)
    return cancelled


async def test_a_batch_that_is_cancelled_is_heard_of_and_others_are_not_meant(
    nc: Client, js: JetStreamContext
) -> None:
    cancelled = await listening(nc, js)
    await say(js, "monday")
    await eventually(lambda: "monday" in cancelled)
    assert "tuesday" not in cancelled


async def test_who_starts_later_finds_what_was_cancelled(nc: Client, js: JetStreamContext) -> None:
    await say(js, "monday")
    await say(js, "tuesday")
    await say(js, "tuesday", undone=True)
    cancelled = await listening(nc, js)
    assert "monday" in cancelled
    assert "tuesday" not in cancelled


async def test_a_batch_goes_on_when_its_cancellation_is_undone(
    nc: Client, js: JetStreamContext
) -> None:
    await say(js, "monday")
    cancelled = await listening(nc, js)
    await say(js, "monday", undone=True)
    await eventually(lambda: "monday" not in cancelled)


async def test_what_was_not_heard_is_read_later(js: JetStreamContext) -> None:
    deaf = Cancellations(js, read_again_s=0.01)
    reading = asyncio.create_task(deaf.read_again())
    await say(js, "monday")
    await eventually(lambda: "monday" in deaf)
    reading.cancel()


async def test_a_server_that_is_away_is_asked_again(nats_server: str, js: JetStreamContext) -> None:
    nc = await nats.connect(nats_server)
    cut_off = Cancellations(nc.jetstream(timeout=0.05), read_again_s=0.01)
    await nc.close()
    reading = asyncio.create_task(cut_off.read_again())
    with structlog.testing.capture_logs() as logs:
        await eventually(lambda: len(logs) > 1)
    assert {line["event"] for line in logs} == {"cancellations.unread"}
    reading.cancel()


async def test_what_is_no_cancellation_cancels_nothing(nc: Client, js: JetStreamContext) -> None:
    cancelled = await listening(nc, js)
    await js.publish(topology.batch_subject("monday", "cancelled"), b"{}")
    await say(js, "tuesday")
    await eventually(lambda: "tuesday" in cancelled)
    assert "monday" not in cancelled
