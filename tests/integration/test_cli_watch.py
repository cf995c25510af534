"""`cardflow watch` as a real process on a real server: what it prints, and how it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta

import pytest
from nats.js import JetStreamContext
from pipeline_by_hand import NOON, cardflow, cards_finished, finish, until

from services.kernel import topology

Watch = Callable[..., Awaitable[Process]]


@pytest.fixture
async def watch(nats_server: str) -> AsyncIterator[Watch]:
    """Starts the command; what a test leaves running is killed."""
    started: list[Process] = []

    async def start(*arguments: str, stdout: int = PIPE) -> Process:
        command = (sys.executable, "-m", "services.cli", "watch", *arguments)
        process = await asyncio.create_subprocess_exec(
            *command, "--nats", nats_server, stdout=stdout, stderr=PIPE
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def printed(process: Process) -> list[str]:
    """What it prints until it ends by itself; it must end well."""
    async with asyncio.timeout(30):
        out, error = await process.communicate()
    assert (process.returncode, error.decode()) == (0, "")
    return out.decode().splitlines() if out else []


async def test_people_see_one_line_a_term(js: JetStreamContext, watch: Watch) -> None:
    await finish(js, "b1", "책", finished_at=NOON + timedelta(seconds=1.2))
    lines = await printed(await watch("b1", "--from-start", "--count", "1"))
    assert lines == ["책[tɕʰɛk̚]  noun  book  · Scene, Hanja  · $0.00012 · 1.2 s"]


async def test_programs_see_each_event_as_it_was_published(
    js: JetStreamContext, watch: Watch
) -> None:
    await finish(js, "b1", "책")
    await js.publish("cards.finished.b1.other", b'{\n"not": "ours"}')
    lines = await printed(await watch("--from-start", "--json", "--count", "2"))
    assert lines == [cards_finished("b1", "책").to_bytes().decode(), '{ "not": "ours"}']


async def test_only_the_batch_that_was_named_is_followed(
    js: JetStreamContext, watch: Watch
) -> None:
    await finish(js, "b1", "책")
    await finish(js, "b2", "물")
    lines = await printed(await watch("b2", "--from-start", "--count", "1"))
    assert lines[0].startswith("물[")


async def test_from_now_on_is_the_default(js: JetStreamContext, watch: Watch) -> None:
    await finish(js, "b1", "책")
    process = await watch("--count", "1")
    await until(lambda: is_watched(js))
    await finish(js, "b1", "물")
    assert (await printed(process))[0].startswith("물[")


async def is_watched(js: JetStreamContext) -> bool:
    # The exporter's consumer is the other one.
    return (await js.stream_info(topology.CARDS.name)).state.consumer_count == 2


async def test_an_event_that_is_no_card_is_told_and_passed_over(
    js: JetStreamContext, watch: Watch
) -> None:
    await js.publish("cards.finished.b1.other", b"{}")
    await finish(js, "b1", "책")
    process = await watch("--from-start", "--count", "2")
    async with asyncio.timeout(30):
        out, error = await process.communicate()
    assert process.returncode == 0
    assert len(out.decode().splitlines()) == 1
    assert "no finished cards: batch: Field required" in error.decode()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_it_well(
    js: JetStreamContext, watch: Watch, number: signal.Signals
) -> None:
    process = await watch()
    await until(lambda: is_watched(js))
    process.send_signal(number)
    assert await printed(process) == []


async def test_a_reader_that_goes_ends_it_at_once(js: JetStreamContext, watch: Watch) -> None:
    reading, writing = os.pipe()
    process = await watch(stdout=writing)
    os.close(writing)
    await until(lambda: is_watched(js))
    os.close(reading)
    assert await printed(process) == []


async def test_a_reader_that_went_while_cards_come_ends_it_well(
    js: JetStreamContext, watch: Watch
) -> None:
    await finish(js, "b1", "책", "물")
    reading, writing = os.pipe()
    os.close(reading)
    process = await watch("--from-start", stdout=writing)
    os.close(writing)
    assert await printed(process) == []


async def test_a_bad_batch_name_exits_2(nats_server: str) -> None:
    result = await cardflow("watch", "a.b", "--nats", nats_server)
    assert result.exit_code == 2


async def test_a_server_without_streams_is_told(nats_server: str, watch: Watch) -> None:
    process = await watch()
    async with asyncio.timeout(30):
        _, error = await process.communicate()
    assert process.returncode == 2
    assert "cardflow provision" in error.decode()
