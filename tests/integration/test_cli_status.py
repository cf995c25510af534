"""`cardflow status` on a real server, from the first submission to the end of a batch."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from nats.js import JetStreamContext
from pipeline_by_hand import cardflow, complete, finish, ingest, open_batch, report, until

from services.cli.machine.nats_server import EmbeddedServer, binary, free_port
from services.cli.submitting.batch_status import batch_status, known_batches


async def submit(js: JetStreamContext, batch: str, *terms: str) -> None:
    for term in terms:
        await js.publish(f"terms.submit.{batch}", term.encode())


async def status(nats_server: str, *arguments: str) -> Any:
    result = await cardflow("status", *arguments, "--json", "--nats", nats_server)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


async def test_the_status_follows_a_batch_to_its_end(
    nats_server: str, js: JetStreamContext
) -> None:
    await open_batch(js, "b1", 3)
    await submit(js, "b1", "책", "물", "hello")
    assert (await status(nats_server, "b1"))["state"] == "running"
    await ingest(js, 3)
    await finish(js, "b1", "책")
    shown = await status(nats_server, "b1")
    assert shown.pop("eta_s") > 0
    assert shown == {
        "batch": "b1",
        "submitted": 3,
        "accepted": 2,
        "analyzed": 1,
        "finished": 1,
        "dead": 1,
        "cancelled": 0,
        "in_flight": 1,
        "cached": 0,
        "calls": 0,
        "cost_usd": 0.0,
        "state": "running",
        "paused": {},
        "waiting": {},
        "routes": [],
        "out_of_money": [],
    }
    await finish(js, "b1", "물")
    assert (await status(nats_server, "b1"))["state"] == "running"
    await report(js, "b1", finished=2, dead=1)
    shown = await status(nats_server, "b1")
    assert (shown["state"], shown["eta_s"]) == ("completed", 0.0)
    assert (shown["calls"], shown["cached"], shown["cost_usd"]) == (4, 1, 0.25)


async def test_a_batch_that_nobody_opened_is_open_once_it_rests(
    nats_server: str, js: JetStreamContext
) -> None:
    await js.publish("terms.submit", "책".encode())
    assert (await status(nats_server, "default"))["state"] == "running"
    await ingest(js, 1)
    assert (await status(nats_server, "default"))["state"] == "running"
    await finish(js, "default", "책")
    assert (await status(nats_server, "default"))["state"] == "open"


async def test_without_a_batch_all_are_shown(nats_server: str, js: JetStreamContext) -> None:
    assert await status(nats_server) == []
    empty = await cardflow("status", "--nats", nats_server)
    assert "There are no batches yet" in empty.stdout
    await js.publish("terms.submit", "책".encode())
    await submit(js, "b2", "책")
    await submit(js, "나쁜", "책")
    await open_batch(js, "b1", 7)
    assert await known_batches(js) == ["b1", "b2", "default"]
    assert [each["batch"] for each in await status(nats_server)] == ["b1", "b2", "default"]
    table = await cardflow("status", "--nats", nats_server)
    assert "in flight" in table.stdout
    assert "default" in table.stdout


async def test_people_see_one_figure_a_line(nats_server: str, js: JetStreamContext) -> None:
    await open_batch(js, "b1", 1)
    result = await cardflow("status", "b1", "--nats", nats_server)
    lines = {line.split()[0]: line.split()[-1] for line in result.stdout.splitlines()}
    assert lines["batch"] == "b1"
    assert lines["cost"] == "$0.000000"
    assert lines["eta"] == "unknown"


async def test_an_unknown_batch_exits_1_and_names_the_known_ones(
    nats_server: str, js: JetStreamContext
) -> None:
    await submit(js, "b1", "책")
    for name in ("b2", "*", ">", "b1.x"):
        result = await cardflow("status", name, "--nats", nats_server)
        assert result.exit_code == 1
        assert "there are: b1" in result.stderr


async def test_a_rate_counts_only_what_ended_since_the_batch_was_opened_again(
    js: JetStreamContext,
) -> None:
    await open_batch(js, "b1", 1)
    await submit(js, "b1", "책", "물")
    await ingest(js, 2)
    await finish(js, "b1", "책")
    await report(js, "b1", finished=1)
    assert (await batch_status(js, "b1")).eta_s is not None
    await complete(js, "b1", finished=1)
    assert (await batch_status(js, "b1")).eta_s is not None
    await open_batch(js, "b1", 2)
    assert (await batch_status(js, "b1")).eta_s is None


async def test_no_pipeline_to_ask_exits_2(nats_server: str) -> None:
    result = await cardflow("status", "--nats", "nats://127.0.0.1:1")
    assert result.exit_code == 2
    both = await cardflow("status", "--nats", nats_server, "--data", "x")
    assert both.exit_code == 2
    assert "either --data or --nats" in both.stderr


async def test_a_server_without_jetstream_is_told(tmp_path: Path) -> None:
    port = free_port()
    command = (binary(), "--addr", "127.0.0.1", "--port", str(port), "--log", str(tmp_path / "log"))
    server = await asyncio.create_subprocess_exec(*command)
    try:
        await until(lambda: asyncio.to_thread(EmbeddedServer(tmp_path, port=port).is_listening))
        result = await cardflow("status", "--nats", f"nats://127.0.0.1:{port}")
    finally:
        server.terminate()
        await server.wait()
    assert result.exit_code == 2
    assert "see whether it runs and has JetStream enabled" in result.stderr
