"""A server on loopback that answers with the very bytes a test gives it."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

Script = Callable[[asyncio.StreamWriter], Awaitable[None]]
"""What the server does when it has read a request."""

_LINGER_0 = struct.pack("ii", 1, 0)


@dataclass
class ScriptedServer:
    """Answers the nth request by the nth script, and further ones by the last.

    `ended` is set when the test is over.
    """

    scripts: Sequence[Script]
    url: str = ""
    calls: int = 0
    headers: list[bytes] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while not self.ended.is_set() and not writer.is_closing():
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                await reader.readexactly(length)
                script = self.scripts[min(self.calls, len(self.scripts) - 1)]
                self.calls += 1
                self.headers.append(head)
                await script(writer)
                await writer.drain()
        writer.close()
        with suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()


@asynccontextmanager
async def scripted(
    *scripts: Script, tls: ssl.SSLContext | None = None
) -> AsyncIterator[ScriptedServer]:
    scripted_server = ScriptedServer(scripts)
    handlers: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        handlers.add(task)
        with suppress(asyncio.CancelledError):  # The test is over.
            await scripted_server.serve(reader, writer)
        writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    scheme = "http" if tls is None else "https"
    scripted_server.url = f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield scripted_server
    finally:
        scripted_server.ended.set()
        server.close()
        for handler in handlers:
            handler.cancel()
        await asyncio.wait_for(asyncio.gather(*handlers, return_exceptions=True), 5)
        await asyncio.sleep(0)  # Until the connections are closed.


def http(
    body: bytes | object,
    *headers: str,
    status: int | str = 200,
    length: int | None = None,
    version: str = "1.1",
) -> bytes:
    """A whole answer; what is no bytes is written as JSON."""
    raw = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()
    size = len(raw) if length is None else length
    lines = [f"HTTP/{version} {status} Said", f"Content-Length: {size}"]
    if not any(header.lower().startswith("content-type:") for header in headers):
        lines.append("Content-Type: application/json")
    return "\r\n".join([*lines, *headers, "", ""]).encode() + raw


def writes(raw: bytes, *, then: Callable[[asyncio.StreamWriter], object] | None = None) -> Script:
    async def script(writer: asyncio.StreamWriter) -> None:
        writer.write(raw)
        if then is not None:
            with suppress(ConnectionError):
                await writer.drain()
            then(writer)

    return script


def hangs(after: bytes = b"") -> Script:
    """For ever, from the client's point of view."""

    async def script(writer: asyncio.StreamWriter) -> None:
        writer.write(after)
        await writer.drain()
        await asyncio.sleep(3_600)

    return script


def repeats(head: bytes, piece: bytes, *, every_s: float = 0.0) -> Script:
    """The head, and then the piece for as long as anybody listens."""

    async def script(writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while not writer.is_closing():
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(every_s)

    return script


def reset(writer: asyncio.StreamWriter) -> None:
    """A TCP reset, no orderly end."""
    raw: socket.socket = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0)
    writer.transport.abort()


def close(writer: asyncio.StreamWriter) -> None:
    writer.close()


@asynccontextmanager
async def at_once(script: Script) -> AsyncIterator[str]:
    """The https URL of a server that does not wait for a request."""
    handlers: set[asyncio.Task[None]] = set()

    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        handlers.add(task)
        with suppress(ConnectionError, asyncio.CancelledError):
            await script(writer)
        writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    finally:
        server.close()
        for handler in handlers:
            handler.cancel()
        await asyncio.wait_for(asyncio.gather(*handlers, return_exceptions=True), 5)
        await asyncio.sleep(0)  # Until the connections are closed.
