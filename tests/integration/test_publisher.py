"""Publishing on a real server: published, taken already, or an outage; never in doubt."""

from __future__ import annotations

import asyncio
import time

import pytest
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.errors import APIError

from services.kernel import topology
from services.kernel.errors import Outage, PermanentError
from services.kernel.provisioning.provision import stream_config
from services.kernel.settings import NatsSettings
from services.kernel.stream.outgoing import Publisher, is_duplicate

SUBJECT = topology.analyzed_subject("b1", "t1")


def publisher(js: JetStreamContext) -> Publisher:
    return Publisher(js, timeout_s=2, election_s=0.3)


async def test_a_message_is_published_with_its_headers(js: JetStreamContext) -> None:
    assert await publisher(js).publish(SUBJECT, b"x", headers={"traceparent": "t"}) == "published"
    stored = await js.get_last_msg("ANALYSES", SUBJECT)
    assert (stored.data, (stored.headers or {})["traceparent"]) == (b"x", "t")


async def test_a_taken_subject_is_a_duplicate_and_keeps_the_first(js: JetStreamContext) -> None:
    publish = publisher(js).publish
    assert await publish(SUBJECT, b"first") == "published"
    assert await publish(SUBJECT, b"second") == "duplicate"
    assert (await js.get_last_msg("ANALYSES", SUBJECT)).data == b"first"


@pytest.mark.parametrize(
    ("bound", "description"),
    [
        ({"max_msgs": 1}, "maximum messages exceeded"),
        ({"max_bytes": 200}, "maximum bytes exceeded"),
    ],
)
async def test_a_full_stream_is_an_outage_and_not_taken_for_a_duplicate(
    bound: dict[str, int], description: str, js: JetStreamContext
) -> None:
    config = (await js.stream_info("ANALYSES")).config
    await js.update_stream(config.evolve(**bound))
    await publisher(js).publish(SUBJECT, b"x" * 100)
    with pytest.raises(APIError) as refused:
        await js.publish(topology.analyzed_subject("b1", "t2"), b"x" * 100)
    assert refused.value.err_code == topology.ALREADY_WRITTEN
    assert not is_duplicate(refused.value)
    with pytest.raises(Outage, match=description):
        await publisher(js).publish(topology.analyzed_subject("b1", "t2"), b"x" * 100)


async def test_a_duplicate_on_a_full_stream_is_still_a_duplicate(js: JetStreamContext) -> None:
    config = (await js.stream_info("ANALYSES")).config
    await js.update_stream(config.evolve(max_msgs=1))
    await publisher(js).publish(SUBJECT, b"x")
    assert await publisher(js).publish(SUBJECT, b"x") == "duplicate"


async def test_without_a_stream_it_is_an_outage_in_bounded_time(js: JetStreamContext) -> None:
    await js.delete_stream("ANALYSES")
    started = time.monotonic()
    with pytest.raises(Outage, match="no stream took"):
        await publisher(js).publish(SUBJECT, b"x")
    assert 0.3 <= time.monotonic() - started < 2


async def test_a_stream_that_comes_back_in_time_gets_the_message(js: JetStreamContext) -> None:
    await js.delete_stream("ANALYSES")
    publishing = asyncio.create_task(Publisher(js, timeout_s=2).publish(SUBJECT, b"x"))
    await asyncio.wait([publishing], timeout=0.1)
    assert not publishing.done()
    await js.add_stream(stream_config(topology.ANALYSES, NatsSettings(stream_max_mib=64)))
    assert await publishing == "published"


async def test_a_silent_server_is_an_outage(nc: Client, js: JetStreamContext) -> None:
    await js.delete_stream("ANALYSES")
    await nc.subscribe(SUBJECT)  # Somebody listens, and nobody acknowledges.
    with pytest.raises(Outage, match="publishing to"):
        await Publisher(js, timeout_s=0.2).publish(SUBJECT, b"x")


async def test_a_message_beyond_every_servers_bound_will_never_do(js: JetStreamContext) -> None:
    with pytest.raises(PermanentError) as refused:
        await publisher(js).publish(SUBJECT, b"x" * (2 * topology.MIB))
    assert refused.value.reason == "too_large"
