"""The simulator on a real port: what only a connection can show."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import httpx
import pytest
from simulator_calls import INSTANT, PATH, analysis_call, stats_of

from services.kernel.errors import SettingsError
from services.simulator.app import SimulatorSettings, build_app
from services.simulator.server import build_server, listen

DEADLINE_S = 20


@asynccontextmanager
async def served(settings: SimulatorSettings) -> AsyncIterator[httpx.AsyncClient]:
    listening = listen("127.0.0.1", 0)
    port = listening.getsockname()[1]
    server = build_server(build_app(settings))
    async with asyncio.TaskGroup() as group:
        group.create_task(server.serve(sockets=[listening]))
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10) as client:
            yield client
        server.should_exit = True


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Ask again and again until it holds; a refused connection does not hold."""
    deadline_s = time.monotonic() + DEADLINE_S
    for _ in iter(lambda: time.monotonic() < deadline_s, False):
        with suppress(httpx.TransportError):
            if await holds():
                return
        await asyncio.sleep(0.01)
    raise AssertionError(f"it did not come to hold within {DEADLINE_S} s")


async def test_a_connection_is_reset_before_the_first_byte() -> None:
    async with served(replace(INSTANT, error_rate=1, error_kinds=("reset",))) as client:
        with pytest.raises(httpx.ReadError):
            await client.post(PATH, json=analysis_call("책"))
        stats = await stats_of(client)

    assert stats["errors"] == {"reset": 1}


async def test_a_body_is_cut_in_the_middle() -> None:
    async with served(replace(INSTANT, error_rate=1, error_kinds=("cut",))) as client:
        async with client.stream("POST", PATH, json=analysis_call("책")) as response:
            with pytest.raises(httpx.RemoteProtocolError):
                await response.aread()
        stats = await stats_of(client)
        generation = await client.get(
            "/generation", params={"id": response.headers["x-generation-id"]}
        )

    assert response.status_code == 200
    assert stats["errors"] == {"cut": 1}
    assert generation.json()["data"]["total_cost"] == stats["lost_usd"] > 0


async def test_a_hanging_call_ends_when_the_caller_gives_up() -> None:
    async with served(replace(INSTANT, hang_rate=1)) as client:
        with pytest.raises(httpx.ReadTimeout):
            await client.post(PATH, json=analysis_call("책"), timeout=0.2)

        async def nothing_in_flight() -> bool:
            return (await stats_of(client))["in_flight"] == 0

        await until(nothing_in_flight)
        stats = await stats_of(client)

    assert stats["errors"] == {"hang": 1}
    assert stats["charged_usd"] == 0


async def test_a_caller_that_left_is_billed_all_the_same() -> None:
    async with served(replace(INSTANT, latency_ms=300)) as client:
        with pytest.raises(httpx.ReadTimeout):
            await client.post(PATH, json=analysis_call("책"), timeout=0.05)
        await client.post(PATH, json=analysis_call("책"))
        stats = await stats_of(client)

    assert stats["answered"] == 2
    assert stats["duplicates"] == 1


async def test_connections_are_kept_alive() -> None:
    ports = set()
    async with served(INSTANT) as client:
        for _ in range(3):
            reply = await client.post(PATH, json=analysis_call("책"))
            ports.add(reply.extensions["network_stream"].get_extra_info("client_addr"))

    assert len(ports) == 1


def test_a_taken_port_is_named() -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=rf"127\.0\.0\.1:{port} .* choose another --port"):
            listen("127.0.0.1", port)


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_an_ipv6_address_can_be_served() -> None:
    with listen("::1", 0) as listening:
        assert listening.family == socket.AF_INET6


async def test_it_can_be_served_from_another_thread() -> None:
    """Signals stay the main thread's; the port is closed when the server is told to stop."""
    listening = listen("127.0.0.1", 0)
    server = build_server(build_app(INSTANT))
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.to_thread(server.run, sockets=[listening]))

        async def has_started() -> bool:
            return server.started

        await until(has_started)
        server.should_exit = True

    assert listening.fileno() == -1


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no SIGTERM")
@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_with_0_even_with_a_hanging_call(stop: signal.Signals) -> None:
    program = (
        "import sys; from services.simulator.app import SimulatorSettings, serve; "
        "serve(SimulatorSettings(hang_rate=1), port=int(sys.argv[1]))"
    )
    with listen("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        program,
        str(port),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:

        async def is_alive() -> bool:
            return (await client.get("/livez")).status_code == 200

        async def has_a_call_in_hand() -> bool:
            return (await stats_of(client))["in_flight"] == 1

        await until(is_alive)
        hanging = asyncio.create_task(client.post(PATH, json=analysis_call("책"), timeout=60))
        await until(has_a_call_in_hand)
        started_s = time.monotonic()
        process.send_signal(stop)
        async with asyncio.timeout(DEADLINE_S):
            printed = await process.communicate()
        answer = await hanging

    assert process.returncode == 0
    assert answer.status_code == 500
    assert printed == (b"", b"")
    assert time.monotonic() - started_s < 5
