"""A whole service on a real server: starting, readiness, stopping, and coming through faults."""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import nats
import nats.errors
import nats.js.errors
import pytest
import structlog
from delivering import BATCH, analyze, eventually
from faststream import AckPolicy
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext

from services.cli.machine.nats_server import EmbeddedServer, binary, free_port
from services.kernel import topology
from services.kernel.app import Frame, Service
from services.kernel.connected import Connected
from services.kernel.metrics import Metrics
from services.kernel.provisioning.provision import provision
from services.kernel.settings import (
    HttpSettings,
    KernelSettings,
    LogSettings,
    NatsSettings,
    RetrySettings,
)
from services.kernel.stream.attempts import AttemptLedger
from services.kernel.stream.checkpoint import Checkpoint
from services.kernel.stream.fetching import note_fetched
from services.kernel.stream.in_hand import InHand
from services.kernel.stream.incoming import Incoming, Outgoing

Handle = Callable[[Incoming, AttemptLedger], Any]
GROUPS = pytest.mark.parametrize("fetch_size", [1, 20], ids=["one by one", "in groups"])
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def settings_for(url: str, *, ack_wait_s: float = 20, grace_s: float = 10) -> KernelSettings:
    return KernelSettings(
        nats=NatsSettings(url=url, stream_max_mib=64, ack_wait_s=ack_wait_s),
        http=HttpSettings(port=free_port()),
        log=LogSettings(level="info", format="json"),
        retry=RetrySettings(base_s=0.05, cap_s=0.5),
        grace_s=grace_s,
    )


def stage1_service(
    handle: Handle = analyze, *, concurrency: int = 4, fetch_size: int = 1
) -> Service:
    @asynccontextmanager
    async def open_handler(_connected: Connected) -> AsyncIterator[Handle]:
        yield handle

    return Service(
        name="stage1",
        open_handler=open_handler,
        next_checkpoint=lambda js: Checkpoint(js, "ANALYSES", topology.analyzed_subject),
        concurrency=concurrency,
        fetch_size=fetch_size,
    )


class Running:
    """A service in this process, looked at from outside through its probes."""

    def __init__(self, service: Service, settings: KernelSettings) -> None:
        self.frame = Frame(service, settings)
        self._port = settings.http.port
        self.task = asyncio.create_task(self.frame.app.run())

    async def stop(self) -> None:
        self.frame.app.exit()
        await self.task

    async def probe(self, path: str) -> tuple[int, str]:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{self._port}{path}") as response,
        ):
            return response.status, await response.text()

    async def is_ready(self) -> bool:
        try:
            return (await self.probe("/readyz"))[0] == 200
        except aiohttp.ClientConnectionError:
            self.task.done() and self.task.result()
            return False

    async def reasons(self) -> dict[str, str]:
        try:
            status, body = await self.probe("/readyz")
        except aiohttp.ClientConnectionError:
            return {}
        dependencies: dict[str, str] = json.loads(body)["dependencies"]
        return dependencies if status == 503 else {}


@asynccontextmanager
async def running(service: Service, settings: KernelSettings) -> AsyncIterator[Running]:
    replica = Running(service, settings)
    try:
        await eventually(replica.is_ready)
        yield replica
    finally:
        await replica.stop()


async def accept(js: JetStreamContext, *ids: str) -> None:
    for id_ in ids:
        await js.publish(topology.accepted_subject(BATCH, id_), b"x")


async def analyses(js: JetStreamContext) -> int:
    return (await js.stream_info("ANALYSES")).state.messages


async def pending(js: JetStreamContext) -> tuple[int, int]:
    """(handed out and unanswered, not yet handed out)"""
    info = await js.consumer_info("TERMS", "stage1")
    return info.num_ack_pending or 0, info.num_pending or 0


# Starting


async def test_the_probes_answer_and_terms_are_worked_on(
    nats_server: str, js: JetStreamContext
) -> None:
    async with running(stage1_service(), settings_for(nats_server)) as replica:
        await accept(js, "t1", "t2")

        async def both() -> bool:
            return await analyses(js) == 2 and await pending(js) == (0, 0)

        await eventually(both)
        assert json.loads((await replica.probe("/livez"))[1]) == {"status": "alive"}
        status, ready = await replica.probe("/readyz")
        dependencies = {"nats": "ok", "results": "ok", "stage1": "ok"}
        assert (status, json.loads(ready)["dependencies"]) == (200, dependencies)
        metrics = (await replica.probe("/metrics"))[1]
        completed = "cardflow_messages_completed_total"
        assert f'{completed}{{outcome="published",service="stage1"}} 2.0' in metrics


async def test_until_it_is_provisioned_a_service_waits_and_says_what_is_missing(
    nats_server: str, nc: Client
) -> None:
    settings = settings_for(nats_server)
    replica = Running(stage1_service(), settings)

    async def waits_for_streams() -> bool:
        return "cardflow provision" in (await replica.reasons()).get("stage1", "")

    await eventually(waits_for_streams)
    assert await replica.reasons() == {
        "nats": "ok",
        "stage1": "stream SUBMISSIONS: missing; run `cardflow provision`",
    }
    assert (await replica.probe("/livez"))[0] == 200
    js = nc.jetstream()
    assert await js.streams_info() == []
    await provision(js, settings.nats)
    await eventually(replica.is_ready)
    await replica.stop()


async def test_without_a_server_a_service_waits_for_it(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path / "nats", port=free_port(), sync_always=False)
    settings = settings_for(server.url)
    replica = Running(stage1_service(), settings)

    async def waits_for_nats() -> bool:
        return await replica.reasons() == {
            "nats": "not connected",
            "stage1": "connecting to NATS",
        }

    await eventually(waits_for_nats)
    with server.running():
        nc = await nats.connect(server.url)
        await provision(nc.jetstream(), settings.nats)
        await nc.close()
        await eventually(replica.is_ready)
        await replica.stop()


async def test_a_server_without_jetstream_is_told_and_waited_for() -> None:
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        binary(), "--addr", "127.0.0.1", "--port", str(port)
    )
    try:
        replica = Running(stage1_service(), settings_for(f"nats://127.0.0.1:{port}"))

        async def cannot_ask() -> bool:
            return "NATS can't be asked" in (await replica.reasons()).get("stage1", "")

        await eventually(cannot_ask)
        await replica.stop()
    finally:
        process.terminate()
        await process.wait()


async def test_a_service_that_is_stopped_while_it_waits_ends_at_once(nats_server: str) -> None:
    replica = Running(stage1_service(), settings_for(nats_server))

    async def waits() -> bool:
        return bool(await replica.reasons())

    await eventually(waits)
    started = time.monotonic()
    await replica.stop()
    assert time.monotonic() - started < 2


# Stopping


class Gate:
    """A handler that holds its terms until the gate is opened."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.opened = asyncio.Event()

    async def __call__(self, incoming: Incoming, _ledger: AttemptLedger) -> Outgoing:
        self.begun.append(incoming.subject)
        await self.opened.wait()
        return await analyze(incoming)


async def test_a_stop_finishes_what_is_in_hand_and_gives_back_the_rest(
    nats_server: str, js: JetStreamContext
) -> None:
    gate = Gate()
    replica = Running(stage1_service(gate, concurrency=2), settings_for(nats_server))
    await eventually(replica.is_ready)
    await accept(js, *(f"t{n}" for n in range(20)))

    async def fetched_more_than_begun() -> bool:
        return len(gate.begun) == 2 and (await pending(js))[0] > 2

    await eventually(fetched_more_than_begun)
    replica.frame.app.exit()

    async def stopping() -> bool:
        return (await replica.reasons()).get("stage1") == "stopping"

    await eventually(stopping)
    gate.opened.set()
    await replica.task
    assert await analyses(js) == len(gate.begun) < 20
    subscription = await js.pull_subscribe_bind(durable="stage1", stream="TERMS")
    again = 0
    while again < 20 - len(gate.begun):  # At once, without waiting out the ack_wait of 20 s.
        for message in await subscription.fetch(20, timeout=2):
            await message.ack_sync()
            again += 1
    assert await pending(js) == (0, 0)


async def test_a_stop_of_an_idle_service_leaves_nothing_handed_out(
    nats_server: str, js: JetStreamContext
) -> None:
    async with running(stage1_service(), settings_for(nats_server)):
        await accept(js, "t1")

        async def done() -> bool:
            return await pending(js) == (0, 0)

        await eventually(done)
    await accept(js, "t2")
    assert await pending(js) == (0, 1)


async def test_work_that_outlasts_the_grace_period_is_cut_off_and_comes_again(
    nats_server: str, js: JetStreamContext
) -> None:
    gate = Gate()
    replica = Running(stage1_service(gate), settings_for(nats_server, ack_wait_s=1, grace_s=0.2))
    await provision(js, NatsSettings(stream_max_mib=64, ack_wait_s=1))
    await eventually(replica.is_ready)
    await accept(js, "t1")
    await eventually(lambda: bool(gate.begun))
    started = time.monotonic()
    await replica.stop()
    assert time.monotonic() - started < 2
    assert await analyses(js) == 0
    subscription = await js.pull_subscribe_bind(durable="stage1", stream="TERMS")
    [again] = await subscription.fetch(1, timeout=5)
    assert again.metadata.num_delivered == 2


async def test_what_the_handler_opened_is_closed_at_the_end(
    nats_server: str, js: JetStreamContext
) -> None:
    steps: list[str] = []

    def open_handler(connected: Connected) -> AbstractAsyncContextManager[Handle]:
        @asynccontextmanager
        async def opened() -> AsyncIterator[Handle]:
            steps.append(f"opened {connected.nc.is_connected}")
            yield analyze
            steps.append(f"closed {connected.nc.is_connected}")

        return opened()

    service = Service("stage1", open_handler, stage1_service().next_checkpoint, concurrency=1)
    async with running(service, settings_for(nats_server)):
        assert steps == ["opened True"]
    assert steps == ["opened True", "closed True"]


# Faults


@GROUPS
async def test_a_server_that_is_killed_and_comes_back_stops_nothing_for_good(
    fetch_size: int, tmp_path: Path
) -> None:
    terms = 60
    server = EmbeddedServer(tmp_path / "nats", port=free_port(), sync_always=False)
    settings = settings_for(server.url, ack_wait_s=2)
    kill_now = asyncio.Event()
    handled = 0

    async def handle(incoming: Incoming, _ledger: AttemptLedger) -> Outgoing:
        nonlocal handled
        handled += 1
        if handled == terms // 3:
            kill_now.set()
        return await analyze(incoming)

    with server.running() as process:
        nc = await nats.connect(server.url, max_reconnect_attempts=-1, reconnect_time_wait=0.1)
        js = nc.jetstream()
        await provision(js, settings.nats)
        await accept(js, *(f"t{n}" for n in range(terms)))
        replica = Running(stage1_service(handle, fetch_size=fetch_size), settings)
        await kill_now.wait()
        process.kill()
        process.wait()
    await eventually(lambda: not nc.is_connected)
    assert not await replica.is_ready()
    with server.running():
        await eventually(lambda: nc.is_connected)

        async def all_done() -> bool:
            try:
                return await analyses(js) == terms and await pending(js) == (0, 0)
            except (nats.errors.Error, nats.js.errors.Error, TimeoutError):
                return False

        await eventually(all_done, within_s=30)
        await eventually(replica.is_ready)
        await replica.stop()
        await nc.close()


@GROUPS
async def test_a_deleted_consumer_costs_one_fetch_a_second_until_it_is_made_again(
    fetch_size: int, nats_server: str, js: JetStreamContext, capsys: pytest.CaptureFixture[str]
) -> None:
    failed: list[datetime] = []

    def failed_often() -> bool:
        failed.extend(
            datetime.fromisoformat(json.loads(line)["timestamp"])
            for line in capsys.readouterr().err.splitlines()
            if '"event": "fetch.failed"' in line
        )
        return len(failed) >= 3

    settings = settings_for(nats_server)
    async with running(stage1_service(fetch_size=fetch_size), settings):
        await accept(js, "t1")

        async def first_done() -> bool:
            return await analyses(js) == 1 and await pending(js) == (0, 0)

        await eventually(first_done)
        await js.delete_consumer("TERMS", "stage1")
        await eventually(failed_often)
        assert (failed[-1] - failed[0]).total_seconds() > 0.9 * (len(failed) - 1)
        await provision(js, settings.nats)
        await accept(js, "t2")

        async def second_done() -> bool:
            return await analyses(js) == 2

        await eventually(second_done)


class ScriptedSubscription:
    """Fetches as the script says."""

    def __init__(self, *script: list[Msg] | Exception) -> None:
        self._script = list(script)

    async def fetch(self, **_options: Any) -> list[Msg]:
        step = self._script.pop(0)
        if isinstance(step, Exception):
            raise step
        return step


@pytest.mark.parametrize("error", [TimeoutError(), nats.errors.TimeoutError()], ids=repr)
async def test_a_fetch_without_messages_ends_empty_and_not_with_an_error(
    error: Exception,
) -> None:
    """The client raises both, and FastStream knows only one of them."""
    subscriber = SimpleNamespace(subscription=ScriptedSubscription(error))
    note_fetched(subscriber, InHand(Metrics("ingest"), ack_wait_s=20))
    assert await subscriber.subscription.fetch(batch=100, timeout=0.1) == []


async def test_a_burst_is_handled_to_its_last_term_in_groups(
    nats_server: str, js: JetStreamContext
) -> None:
    terms = 500
    service = stage1_service(concurrency=100, fetch_size=100)
    async with running(service, settings_for(nats_server)):
        for first in range(0, terms, 25):
            await accept(js, *(f"t{n}" for n in range(first, first + 25)))

        async def all_done() -> bool:
            return await analyses(js) == terms and await pending(js) == (0, 0)

        await eventually(all_done)


def test_a_connection_that_is_closed_for_good_ends_the_process(
    nats_server: str, js: JetStreamContext
) -> None:
    script = """
import asyncio
from services.ingest.app import app

async def close_when_started():
    running = asyncio.create_task(app.run())
    while not app.broker.subscribers[0].running:
        await asyncio.sleep(0.01)
    await app.broker.connection.close()
    await running

asyncio.run(close_when_started())
"""
    ended = subprocess.run(
        [sys.executable, "-c", script],
        check=False,
        env=environment(CARDFLOW_NATS__URL=nats_server),
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (ended.returncode, ended.stdout) == (70, "")
    assert '"event": "nats.closed"' in ended.stderr


# The four services as they are put together


def environment(**added: str) -> dict[str, str]:
    """Nothing but what Python needs: no key, no setting."""
    kept = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT", "HOME") if name in os.environ}
    return kept | added


@pytest.mark.parametrize("name", topology.SERVICES)
def test_no_subscriber_loses_messages_by_a_librarys_default(name: str) -> None:
    app = importlib.import_module(f"services.{name}.app").app
    consumers = topology.consumers_of(name)  # type: ignore[arg-type]
    read = sorted((s.stream.name, s.config.durable_name) for s in app.broker.subscribers)
    assert read == sorted((consumer.stream, consumer.durable) for consumer in consumers)
    for subscriber in app.broker.subscribers:
        assert subscriber.ack_policy is AckPolicy.MANUAL
        assert subscriber.stream.declare is False
        assert subscriber.config.max_deliver == -1
    assert app.broker._connection_kwargs["max_reconnect_attempts"] == -1
    assert app.broker.config.graceful_timeout > 0


IMPORT_WITHOUT_IO = """
import builtins, importlib, pathlib, socket, sys

def refuse(*args, **kwargs):
    raise AssertionError(f"I/O while an app was built: {args}")

for call in ("connect", "connect_ex", "bind", "sendto"):
    setattr(socket.socket, call, refuse)
socket.getaddrinfo = refuse
opened = builtins.open

def only_read(file, mode="r", *args, **kwargs):
    return refuse(file, mode) if set(mode) & set("wax+") else opened(file, mode, *args, **kwargs)

builtins.open = only_read
app = importlib.import_module(f"services.{sys.argv[1]}.app").app
print(type(app).__name__)
"""


@pytest.mark.parametrize("name", topology.SERVICES)
def test_building_an_app_does_no_io_and_needs_no_secret(name: str, tmp_path: Path) -> None:
    built = subprocess.run(
        [sys.executable, "-B", "-c", IMPORT_WITHOUT_IO, name],
        check=False,
        env=environment(PYTHONPATH=str(REPOSITORY)),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (built.returncode, built.stdout.strip()) == (0, "FastStream"), built.stderr
    assert list(tmp_path.iterdir()) == []
