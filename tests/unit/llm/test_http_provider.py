"""The way to an answer: cut off, too slow, too large, refused; and the key kept secret."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import traceback
from contextlib import suppress
from typing import Any

import httpx
import pytest
from asking_fakes import SECRET, access
from provider_answers import REQUEST, answer, choice, error, failure, provider
from pydantic import SecretStr
from scripted_server import Script, ScriptedServer, close, reset, scripted, writes

from services.kernel.errors import PipelineError, SettingsError, TransientError, UncertainCall
from services.kernel.llm.http_provider import REPLY_MAX_BYTES, HttpProvider, open_http_provider

NEVER_SENT = [httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout]
MAYBE_SENT = [
    httpx.ReadTimeout,
    httpx.WriteTimeout,
    httpx.ReadError,
    httpx.WriteError,
    httpx.RemoteProtocolError,
    httpx.DecodingError,
]


@pytest.mark.parametrize("kind", NEVER_SENT)
async def test_what_was_never_sent_costs_nothing(kind: type[httpx.HTTPError]) -> None:
    def respond(_request: httpx.Request) -> httpx.Response:
        raise kind("no way")

    seen = await failure(respond)
    assert type(seen) is TransientError
    assert "can't be reached" in str(seen)


@pytest.mark.parametrize("kind", MAYBE_SENT)
async def test_what_may_have_been_sent_is_uncertain(kind: type[httpx.HTTPError]) -> None:
    def respond(_request: httpx.Request) -> httpx.Response:
        raise kind("cut")

    assert type(await failure(respond)) is UncertainCall


def reply(body: bytes, *headers: str, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    lines = ["HTTP/1.1 200 OK", "Content-Type: application/json", f"Content-Length: {size}"]
    return "\r\n".join([*lines, *headers, "", ""]).encode() + body


GOOD = json.dumps(answer()).encode()


async def asked(script: Script, *, timeout_s: float = 5.0) -> tuple[Any, ScriptedServer]:
    """What came of one call to a scripted server: a completion or an error."""
    async with (
        scripted(script) as server,
        open_http_provider(
            access("custom", base_url=server.url), timeout_s=timeout_s, concurrency=2
        ) as one,
    ):
        try:
            return await one.complete(REQUEST), server
        except PipelineError as seen:
            return seen, server


async def test_a_real_server_is_asked_with_the_key_and_our_name() -> None:
    served, server = await asked(writes(reply(GOOD)))
    assert served.text == "yes"
    (head,) = server.headers
    assert b"POST /v1/chat/completions HTTP/1.1\r\n" in head
    assert f"authorization: bearer {SECRET}".encode() in head.lower()
    assert b"content-type: application/json" in head.lower()
    assert b"user-agent: cardflow/" in head.lower()


async def test_a_connection_is_used_again() -> None:
    async with (
        scripted(writes(reply(GOOD))) as server,
        open_http_provider(
            access("custom", base_url=server.url, api_key=None), timeout_s=5, concurrency=1
        ) as one,
    ):
        for _ in range(3):
            assert (await one.complete(REQUEST)).text == "yes"
    assert server.calls == 3
    assert not [head for head in server.headers if b"authorization" in head.lower()]


async def test_a_compressed_answer_is_read() -> None:
    served, _ = await asked(writes(reply(gzip.compress(GOOD), "Content-Encoding: gzip")))
    assert served.text == "yes"


async def test_an_answer_in_chunks_is_read() -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in GOOD)
    served, _ = await asked(writes(head + chunks + b"0\r\n\r\n"))
    assert served.text == "yes"


CUT_OFF: dict[str, Script] = {
    "reset before the answer": writes(b"", then=reset),
    "closed before the answer": writes(b"", then=close),
    "closed in the head": writes(b"HTTP/1.1 200 OK\r\nContent-", then=close),
    "closed in the body": writes(reply(GOOD[:20], length=len(GOOD)), then=close),
    "reset in the body": writes(reply(GOOD[:20], length=len(GOOD)), then=reset),
    "closed in a chunk": writes(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n40\r\nhalf", then=close
    ),
    "a broken chunk": writes(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhalf\r\n", then=close
    ),
    "no HTTP": writes(b"SSH-2.0-OpenSSH_9.6\r\n", then=close),
    "an endless header": writes(
        b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 200_000 + b"\r\n\r\n", then=close
    ),
    "broken compression": writes(reply(b"no gzip at all", "Content-Encoding: gzip")),
}


@pytest.mark.parametrize("script", CUT_OFF.values(), ids=CUT_OFF)
async def test_a_call_that_was_cut_off_is_uncertain_and_never_sent_twice(script: Script) -> None:
    seen, server = await asked(script)
    assert type(seen) is UncertainCall
    assert server.calls == 1


async def test_a_kept_connection_that_is_reset_is_uncertain_and_never_sent_twice() -> None:
    async def script(writer: asyncio.StreamWriter) -> None:
        if server.calls == 1:
            writer.write(reply(GOOD))
        else:
            reset(writer)

    async with (
        scripted(script) as server,
        open_http_provider(
            access("custom", base_url=server.url), timeout_s=5, concurrency=1
        ) as one,
    ):
        await one.complete(REQUEST)
        with pytest.raises(UncertainCall):
            await one.complete(REQUEST)
    assert server.calls == 2


def blanks_until_the_end(ended: asyncio.Event) -> Script:
    """What a gateway sends to keep a connection open while the model thinks."""

    async def script(writer: asyncio.StreamWriter) -> None:
        writer.write(reply(b"", length=1_000_000))
        while not (ended.is_set() or writer.is_closing()):
            writer.write(b" ")
            await writer.drain()
            with suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), 0.01)

    return script


async def test_a_server_that_never_answers_is_given_up_in_time() -> None:
    ended = asyncio.Event()

    async def hang(_writer: asyncio.StreamWriter) -> None:
        await ended.wait()

    async with scripted(hang) as server:
        to = access("custom", base_url=server.url)
        async with open_http_provider(to, timeout_s=0.1, concurrency=1) as one:
            with pytest.raises(UncertainCall):
                await one.complete(REQUEST)
        ended.set()


async def test_a_server_that_only_sends_signs_of_life_is_given_up_in_time() -> None:
    ended = asyncio.Event()
    async with scripted(blanks_until_the_end(ended)) as server:
        to = access("custom", base_url=server.url)
        async with open_http_provider(to, timeout_s=0.1, concurrency=1) as one:
            with pytest.raises(UncertainCall, match=r"within 0\.1 s"):
                await one.complete(REQUEST)
        ended.set()


@pytest.mark.parametrize("compressed", [False, True])
async def test_an_answer_that_would_fill_our_memory_is_cut(compressed: bool) -> None:
    huge = b" " * (REPLY_MAX_BYTES + 1) + GOOD
    raw = reply(gzip.compress(huge), "Content-Encoding: gzip") if compressed else reply(huge)
    seen, _ = await asked(writes(raw))
    assert type(seen) is UncertainCall
    assert "larger than" in str(seen)


async def test_an_answer_of_just_the_largest_size_is_read() -> None:
    served, _ = await asked(writes(reply(GOOD.rjust(REPLY_MAX_BYTES))))
    assert served.text == "yes"


async def test_a_refused_connection_costs_nothing() -> None:
    with socket.socket() as nobody_listens:
        nobody_listens.bind(("127.0.0.1", 0))
        to = access("custom", base_url=f"http://127.0.0.1:{nobody_listens.getsockname()[1]}/v1")
        async with open_http_provider(to, timeout_s=5, concurrency=1) as one:
            with pytest.raises(TransientError, match="can't be reached") as raised:
                await one.complete(REQUEST)
    assert type(raised.value) is TransientError


async def test_a_server_that_speaks_no_tls_was_sent_nothing() -> None:
    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    to = access("custom", base_url=f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1")
    async with server, open_http_provider(to, timeout_s=5, concurrency=1) as one:
        with pytest.raises(TransientError) as raised:
            await one.complete(REQUEST)
    assert type(raised.value) is TransientError


# Secrets and settings


def told(seen: BaseException) -> str:
    """All that an error says of itself and of its causes."""
    return "".join(traceback.format_exception(seen)) + repr(seen)


LEAKS: dict[str, Script] = {
    "quoted in a refusal": writes(
        reply(json.dumps(error(401, f"Incorrect API key provided: {SECRET}")).encode())
    ),
    "quoted in HTML": writes(reply(f"<html>Bearer {SECRET}</html>".encode())),
    "quoted in a choice": writes(reply(json.dumps(answer(choice(error=SECRET))).encode())),
    "reset": writes(b"", then=reset),
}


@pytest.mark.parametrize("script", LEAKS.values(), ids=LEAKS)
async def test_the_key_is_in_no_message(script: Script) -> None:
    seen, _ = await asked(script)
    assert isinstance(seen, PipelineError)
    assert SECRET not in told(seen)


async def test_the_key_is_in_no_message_about_a_refused_connection() -> None:
    with socket.socket() as nobody_listens:
        nobody_listens.bind(("127.0.0.1", 0))
        to = access("custom", base_url=f"http://127.0.0.1:{nobody_listens.getsockname()[1]}/v1")
        async with open_http_provider(to, timeout_s=5, concurrency=1) as one:
            with pytest.raises(TransientError) as raised:
                await one.complete(REQUEST)
    assert SECRET not in told(raised.value)


async def test_a_placeholder_for_a_key_is_not_taken_out_of_the_text() -> None:
    response = httpx.Response(200, json=answer(choice("none of them")))
    served = await provider(response, access("custom", api_key="none")).complete(REQUEST)
    assert served.text == "none of them"


async def test_a_key_is_sent_without_the_line_break_of_its_file() -> None:
    async with scripted(writes(reply(GOOD))) as server:
        to = access("custom", base_url=server.url, api_key=f"{SECRET}\n")
        async with open_http_provider(to, timeout_s=5, concurrency=1) as one:
            await one.complete(REQUEST)
    assert f"Bearer {SECRET}\r\n".encode() in server.headers[0]


@pytest.mark.parametrize("key", ["sk-열쇠-0123456789abcdef", "sk-0123456789\nabcdef", "sk-\x00"])
async def test_a_key_that_no_header_takes_is_refused_at_the_start(key: str) -> None:
    to = access("custom").model_copy(update={"api_key": SecretStr(key)})
    with pytest.raises(SettingsError, match="copy it again") as raised:
        async with open_http_provider(to, timeout_s=5, concurrency=1):
            pass
    assert key not in told(raised.value)


@pytest.mark.parametrize(
    "base_url",
    ["provider.test/v1", "ftp://provider.test", "http://", "http://[::1", "", "http://a:b"],
)
async def test_an_address_that_nobody_can_be_asked_at_is_refused_at_the_start(
    base_url: str,
) -> None:
    async with httpx.AsyncClient() as client:
        with pytest.raises(SettingsError, match="provider's URL"):
            HttpProvider(client, access("custom", base_url=base_url))
