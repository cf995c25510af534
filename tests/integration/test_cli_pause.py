"""Pausing, resuming and draining on a real server: what is handed out, what waits, what is said."""

from __future__ import annotations

import asyncio
import json
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.js import JetStreamContext
from pipeline_by_hand import cardflow, finish, ingest, open_batch, report, until
from running_pipeline import cardflow as command_line
from running_pipeline import environment

from services.cli.machine.nats_server import EmbeddedServer, free_port
from services.kernel import topology
from services.kernel.provisioning.pausing import (
    consumer_state,
    is_open_ended,
    pause,
    paused_services,
    resume,
)
from services.kernel.provisioning.provision import provision
from services.kernel.settings import NatsSettings

SETTINGS = NatsSettings(stream_max_mib=64)


async def accept(js: JetStreamContext, *ids: str) -> None:
    for id_ in ids:
        await js.publish(topology.accepted_subject("b1", id_), b"x")


async def fetched(js: JetStreamContext, *, within_s: float) -> int:
    """How many messages stage1 is handed out."""
    consumer = await js.pull_subscribe_bind("stage1", stream="TERMS")
    try:
        return len(await consumer.fetch(10, timeout=within_s))
    except TimeoutError:
        return 0
    finally:
        await consumer.unsubscribe()


async def said(*arguments: str, exit_code: int = 0) -> Any:
    result = await cardflow(*arguments, "--json")
    assert result.exit_code == exit_code, result.output
    return json.loads(result.stdout)


async def drain(nats_server: str, *arguments: str, exit_code: int = 0) -> str:
    """`cardflow drain` as a process of its own, since it listens to signals; what it prints."""
    process = await draining(nats_server, *arguments)
    printed, errors = await process.communicate()
    assert process.returncode == exit_code, errors.decode()
    return (printed or errors).decode()


async def draining(nats_server: str, *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *command_line("drain", "--nats", nats_server, *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(),
    )


async def drain_as_json(nats_server: str, *arguments: str, exit_code: int = 0) -> Any:
    return json.loads(await drain(nats_server, *arguments, "--json", exit_code=exit_code))


async def ingest_is_paused(js: JetStreamContext) -> bool:
    return "ingest" in await paused_services(js)


# Pausing


async def test_a_paused_service_is_handed_nothing_until_it_is_resumed(
    nats_server: str, js: JetStreamContext
) -> None:
    done = await said("pause", "stage1", "--nats", nats_server)
    assert done == {"paused": {"stage1": None}}
    await accept(js, "t1")
    assert await fetched(js, within_s=0.5) == 0
    done = await said("resume", "--nats", nats_server)
    assert done == {"resumed": ["stage1"]}
    assert await fetched(js, within_s=5) == 1
    assert await said("resume", "--nats", nats_server) == {"resumed": []}


async def test_resuming_wakes_a_pull_that_waits(js: JetStreamContext) -> None:
    await pause(js, "stage1")
    await accept(js, "t1")
    waiting = asyncio.create_task(fetched(js, within_s=10))

    async def waits() -> bool:
        return bool((await js.consumer_info("TERMS", "stage1")).num_waiting)

    await until(waits)
    begin = asyncio.get_running_loop().time()
    assert await resume(js, "stage1")
    assert await waiting == 1
    assert asyncio.get_running_loop().time() - begin < 2


async def test_a_pause_for_a_time_ends_by_itself(nats_server: str, js: JetStreamContext) -> None:
    done = await said("pause", "stage1", "--for", "1s", "--nats", nats_server)
    until_ = datetime.fromisoformat(done["paused"]["stage1"])
    assert abs(until_ - datetime.now(UTC)) < timedelta(seconds=5)
    await accept(js, "t1")
    assert await fetched(js, within_s=10) == 1
    assert await paused_services(js) == {}


async def test_a_pause_outlives_a_killed_server_a_provision_and_a_remade_consumer(
    tmp_path: Path,
) -> None:
    server = EmbeddedServer(tmp_path / "nats", port=free_port())
    with server.running() as process:
        nc = await nats.connect(server.url)
        js = nc.jetstream()
        await provision(js, SETTINGS)
        await pause(js, "stage1")
        await nc.close()
        process.kill()
    with server.running():
        nc = await nats.connect(server.url)
        js = nc.jetstream()
        assert list(await paused_services(js)) == ["stage1"]
        await provision(js, SETTINGS.model_copy(update={"ack_wait_s": 30}))
        await js.delete_stream("ANALYSES")  # stage1 is made anew to fill it again.
        drifts = await provision(js, SETTINGS)
        assert "stream ANALYSES: created; filled again by stage1" in map(str, drifts)
        [until_] = (await paused_services(js)).values()
        assert is_open_ended(until_)
        await nc.close()


async def test_a_consumer_that_is_missing_is_not_paused(js: JetStreamContext) -> None:
    await js.delete_consumer("TERMS", "stage1")
    assert await paused_services(js) == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("stage9",), "the services are ingest, stage1, stage2, exporter"),
        (("stage1", "--for", "soon"), "write 90s, 30m, 2h, 1d or 1h30m"),
        (("stage1", "--for", "0s"), "is no time"),
        (("stage1", "--for", "99999999d"), "over ten years"),
    ],
)
async def test_what_can_not_be_paused_is_said_and_nothing_is(
    arguments: tuple[str, ...], message: str, nats_server: str, js: JetStreamContext
) -> None:
    result = await cardflow("pause", *arguments, "--nats", nats_server)
    assert result.exit_code == 2
    assert message in result.stderr
    assert await paused_services(js) == {}


async def test_status_and_doctor_name_what_is_paused(
    nats_server: str, js: JetStreamContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CARDFLOW_NATS__STREAM_MAX_MIB", "64")
    await open_batch(js, "b1", 1)
    await pause(js, "stage1")
    await pause(js, "stage2", lasting=timedelta(hours=1))
    [every] = await said("status", "--nats", nats_server)
    one = await said("status", "b1", "--nats", nats_server)
    assert every == one
    assert one["paused"]["stage1"] is None
    assert datetime.fromisoformat(one["paused"]["stage2"]) > datetime.now(UTC)
    for arguments in (("status",), ("status", "b1")):
        shown = (await cardflow(*arguments, "--nats", nats_server)).stdout
        assert "paused: stage1 until resumed, stage2 until 20" in shown
        assert "cardflow resume stage1 stage2" in shown
    found = await said("doctor", "--nats", nats_server)
    [check] = [check for check in found["checks"] if check["name"] == "pauses"]
    assert check["verdict"] == "warn"
    assert check["advice"] == "run `cardflow resume stage1 stage2`"


async def test_submit_and_wait_says_what_is_paused(nats_server: str, js: JetStreamContext) -> None:
    await pause(js, "ingest")
    submit = ("submit", "-", "--batch", "b1", "--wait", "--timeout-s", "1", "--json")
    result = await cardflow(*submit, "--nats", nats_server, input="책")
    assert result.exit_code == 1
    assert "paused: ingest until resumed; go on with: cardflow resume ingest" in result.stderr
    assert json.loads(result.stdout)["published"] == 1


# Draining


async def test_a_drain_finishes_what_was_accepted_and_keeps_later_submissions(
    nats_server: str, js: JetStreamContext
) -> None:
    await js.publish("terms.submit.b1", "책".encode())
    drained = asyncio.create_task(drain_as_json(nats_server))
    await ingest(js, 1)
    await until(lambda: ingest_is_paused(js))
    await js.publish("terms.submit.b1", "물".encode())
    await hand_on(js, "b1", "책")
    assert await drained == {
        "drained": True,
        "ingest_paused": True,
        "blocked": {},
        "open": {"ingest": 1, "stage1": 0, "stage2": 0, "exporter": 0},
        "submissions_waiting": 1,
        "batches": [{"batch": "b1", "finished": 1, "dead": 0, "cancelled": 0, "in_flight": 0}],
    }
    shown = await drain(nats_server)
    assert "Drained: every accepted term has ended." in shown
    assert "1 submissions wait for ingest" in shown
    assert "cardflow resume ingest" in shown
    assert (await said("resume", "--nats", nats_server)) == {"resumed": ["ingest"]}
    await ingest(js, 1)


async def hand_on(js: JetStreamContext, batch: str, *terms: str) -> None:
    """Takes terms through the stages and the store, answering each message."""
    await finish(js, batch, *terms)
    for service in ("stage1", "stage2", "exporter"):
        consumer = await js.pull_subscribe_bind(service, stream=topology.CONSUMERS[service].stream)
        for message in await consumer.fetch(len(terms), timeout=5):
            await message.ack_sync()
        await consumer.unsubscribe()
    await report(js, batch, finished=len(terms))


async def test_a_drain_waits_for_what_is_in_hand_and_its_time_is_bounded(
    nats_server: str, js: JetStreamContext
) -> None:
    await js.publish("terms.submit.b1", "책".encode())
    await ingest(js, 1)
    done = await drain_as_json(nats_server, "--timeout", "1", exit_code=1)
    assert (done["drained"], done["open"]["stage1"]) == (False, 1)
    assert done["batches"][0]["in_flight"] == 1
    shown = await drain(nats_server, "--timeout", "1", exit_code=1)
    assert "The time is up; still in flight: 1 at stage1, 0 at stage2, 0 at exporter." in shown


@pytest.mark.parametrize("service", ["stage1", "stage2", "exporter"])
async def test_a_drain_that_would_wait_for_ever_ends_at_once_and_pauses_nothing(
    service: topology.ServiceName, nats_server: str, js: JetStreamContext
) -> None:
    await accept(js, "t1")
    await pause(js, service)
    done = await drain_as_json(nats_server, exit_code=1)
    assert (done["drained"], done["blocked"]) == (False, {service: None})
    assert list(await paused_services(js)) == [service]
    shown = await drain(nats_server, exit_code=1)
    assert f"Not drained: paused: {service} until resumed" in shown


async def test_a_drain_of_an_ingest_that_is_paused_already_finishes_the_rest(
    nats_server: str, js: JetStreamContext
) -> None:
    await pause(js, "ingest", lasting=timedelta(hours=1))
    await js.publish("terms.submit.b1", "책".encode())
    done = await drain_as_json(nats_server)
    assert (done["drained"], done["submissions_waiting"]) == (True, 1)
    assert is_open_ended((await paused_services(js))["ingest"])


async def test_terms_that_nobody_has_are_named(nats_server: str, js: JetStreamContext) -> None:
    await js.publish("terms.submit.b1", "책".encode())
    await ingest(js, 1)
    consumer = await js.pull_subscribe_bind("stage1", stream="TERMS")
    for message in await consumer.fetch(1, timeout=5):
        await message.ack_sync()  # Its dead letter was deleted.
    shown = await drain(nats_server)
    assert "1 terms of b1 are with nobody: see `cardflow audit b1`" in shown


async def test_where_nothing_is_provisioned_a_drain_says_so(nats_server: str) -> None:
    assert "run `cardflow provision" in await drain(nats_server, exit_code=2)


async def test_a_drain_that_is_broken_off_says_that_ingest_stays_paused(
    nats_server: str, js: JetStreamContext
) -> None:
    await accept(js, "t1")
    process = await draining(nats_server)
    await until(lambda: ingest_is_paused(js))
    process.send_signal(signal.SIGINT)
    _, errors = await process.communicate()
    assert process.returncode == 130
    assert "broken off; ingest stays paused" in errors.decode()
    assert "cardflow resume ingest" in errors.decode()
    assert await ingest_is_paused(js)


async def test_the_state_of_a_consumer_counts_what_is_not_answered(js: JetStreamContext) -> None:
    await accept(js, "t1", "t2", "t3")
    consumer = await js.pull_subscribe_bind("stage1", stream="TERMS")
    [first, _second] = await consumer.fetch(2, timeout=5)
    await first.ack_sync()
    state = await consumer_state(js, "stage1")
    assert (state.waiting, state.in_hand, state.floor, state.open) == (1, 1, 1, 2)
    assert state.ack_wait_s == SETTINGS.ack_wait_s
    assert abs(state.now - datetime.now(UTC)) < timedelta(seconds=5)
