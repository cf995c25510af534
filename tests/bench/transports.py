"""What a call costs over each HTTP transport, against a server in another process on loopback.

    python tests/bench/transports.py                      # all that is installed; prints JSON
    python tests/bench/transports.py --in-flight 50 --only httpx_aiohttp

The server answers a completion of 4 KiB after 50 ms, without TLS; in the last round after
1 s ± 0.7 s. Each transport runs in a process of its own, on uvloop, one after the other. HTTP/2
needs the package `h2`, which is no dependency: use an environment of your own for it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from typing import Any

import httpx
import uvloop
from httpx_aiohttp import AiohttpTransport

TIMEOUT_S = 30.0
BODY = b'{"model":"test/model","messages":[{"role":"user","content":"' + b"x" * 3_000 + b'"}]}'
ANSWER = b'{"id":"gen-1","choices":[{"message":{"content":"' + b"y" * 4_000 + b'"}}]}'
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
RAW = HEAD % len(ANSWER) + ANSWER
ROUNDS = (
    # in flight, calls, latency in s, jitter in s
    (10, 300, 0.05, 0.0),
    (50, 1_500, 0.05, 0.0),
    (200, 3_000, 0.05, 0.0),
    (200, 1_000, 1.0, 0.7),
)
TRANSPORTS = ("httpx_default", "httpx_http2", "httpx_aiohttp")


def client_of(transport: str, in_flight: int) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=in_flight, max_keepalive_connections=in_flight)
    match transport:
        case "httpx_default":
            return httpx.AsyncClient(limits=limits, timeout=TIMEOUT_S)
        case "httpx_http2":  # Without TLS nothing is negotiated: HTTP/2 from the first byte.
            return httpx.AsyncClient(limits=limits, timeout=TIMEOUT_S, http1=False, http2=True)
        case _:
            return httpx.AsyncClient(transport=AiohttpTransport(limits=limits), timeout=TIMEOUT_S)


async def measure(transport: str, url: str, in_flight: int, calls: int) -> dict[str, Any]:
    left, errors = calls, 0
    async with client_of(transport, in_flight) as client:

        async def work() -> None:
            nonlocal left, errors
            while left > 0:
                left -= 1
                try:
                    answer = await client.post(url, content=BODY)
                    errors += answer.status_code != 200 or len(answer.content) != len(ANSWER)
                except httpx.HTTPError:
                    errors += 1

        started, cpu = time.monotonic(), time.process_time()
        await asyncio.gather(*(work() for _ in range(in_flight)))
        elapsed, used = time.monotonic() - started, time.process_time() - cpu
    return {
        "transport": transport,
        "calls_per_s": round(calls / elapsed, 1),
        "cpu_us_per_call": round(1e6 * used / calls),
        "errors": errors,
    }


# The server


async def serve_http1(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError, asyncio.IncompleteReadError):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            await asyncio.sleep(delay_s())
            writer.write(RAW)
            await writer.drain()
    writer.close()


async def serve_http2(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    from h2.config import H2Configuration
    from h2.connection import H2Connection
    from h2.events import DataReceived, StreamEnded

    connection = H2Connection(H2Configuration(client_side=False))
    connection.initiate_connection()
    writer.write(connection.data_to_send())
    answering: set[asyncio.Task[None]] = set()

    async def answer(stream_id: int) -> None:
        await asyncio.sleep(delay_s())
        connection.send_headers(stream_id, [(":status", "200"), ("x-a", "b")])
        connection.send_data(stream_id, ANSWER, end_stream=True)
        writer.write(connection.data_to_send())

    with suppress(ConnectionError):
        while data := await reader.read(65_536):
            for event in connection.receive_data(data):
                if isinstance(event, DataReceived):
                    connection.acknowledge_received_data(
                        event.flow_controlled_length, event.stream_id
                    )
                elif isinstance(event, StreamEnded):
                    answering.add(asyncio.create_task(answer(event.stream_id)))
            writer.write(connection.data_to_send())
    writer.close()


LATENCY = [0.05, 0.0]
"""Mean and most it varies by, in seconds."""


def delay_s() -> float:
    return LATENCY[0] + LATENCY[1] * random.uniform(-1, 1)


async def serve(latency_s: float, jitter_s: float) -> None:
    LATENCY[:] = latency_s, jitter_s
    handlers: list[Callable[..., Awaitable[None]]] = [serve_http1]
    if find_spec("h2"):
        handlers.append(serve_http2)
    servers = [await asyncio.start_server(h, "127.0.0.1", 0, backlog=1_000) for h in handlers]
    print(json.dumps([s.sockets[0].getsockname()[1] for s in servers]), flush=True)
    await asyncio.gather(*(s.serve_forever() for s in servers))


@contextmanager
def serving(latency_s: float, jitter_s: float) -> Iterator[list[int]]:
    command = [sys.executable, __file__, "--serve", str(latency_s), str(jitter_s)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())
    finally:
        process.terminate()
        process.wait()


def run_round(
    transports: list[str], in_flight: int, calls: int, latency_s: float, jitter_s: float
) -> dict[str, Any]:
    """Each transport once, and how it stands to httpx's own pool."""
    results = {}
    with serving(latency_s, jitter_s) as ports:
        for transport in transports:
            port = ports[-1] if transport == "httpx_http2" else ports[0]
            url = f"http://127.0.0.1:{port}/v1/chat/completions"
            command = [sys.executable, __file__, "--measure", transport, url]
            done = subprocess.run(
                [*command, str(in_flight), str(calls)], capture_output=True, text=True, check=True
            )
            results[transport] = json.loads(done.stdout)
    default = results.get("httpx_default")
    for result in results.values():
        del result["transport"]
        if default:
            result["times_the_calls"] = round(result["calls_per_s"] / default["calls_per_s"], 2)
            result["times_the_cpu"] = round(
                result["cpu_us_per_call"] / default["cpu_us_per_call"], 2
            )
    return {
        "in_flight": in_flight,
        "calls": calls,
        "latency_s": latency_s,
        "jitter_s": jitter_s,
        "possible_calls_per_s": round(in_flight / latency_s),
        "transports": results,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--in-flight", type=int, nargs="*", default=None)
    parser.add_argument("--only", choices=TRANSPORTS, nargs="*", default=list(TRANSPORTS))
    parser.add_argument("--serve", type=float, nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--measure", nargs=4, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.serve:
        uvloop.run(serve(*chosen.serve))
        return
    if chosen.measure:
        transport, url, in_flight, calls = chosen.measure
        print(json.dumps(uvloop.run(measure(transport, url, int(in_flight), int(calls)))))
        return
    wanted = [t for t in chosen.only if t != "httpx_http2" or find_spec("h2")]
    rounds = [r for r in ROUNDS if chosen.in_flight is None or r[0] in chosen.in_flight]
    report = {"left_out": sorted(set(chosen.only) - set(wanted))}
    print(json.dumps({**report, "rounds": [run_round(wanted, *r) for r in rounds]}, indent=2))


if __name__ == "__main__":
    main()
