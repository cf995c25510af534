"""Any server of the chat-completions protocol, over HTTP. No retries here: they have one owner.

What an answer means is read in `http_answer`; here is what can go wrong on the way to one.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

from services.kernel.errors import SettingsError, TransientError, UncertainCall
from services.kernel.llm.http_answer import read_answer
from services.kernel.llm.prompt import CompletionRequest
from services.kernel.llm.provider import Completion
from services.kernel.provider_access import ProviderAccess

REPLY_MAX_BYTES = 2 * 1024 * 1024
"""A completion is some 10 KiB; more is a fault, and must not fill our memory."""

KEY_MIN_CHARACTERS = 16
"""A shorter key is what people fill in for a local server (`none`), and part of innocent words."""

_LIST_MAX_BYTES = 32 * 1024 * 1024
_LIST_S = 10.0
_FAULT_MAX_CHARACTERS = 300
_CODINGS = ("gzip", "deflate")
_USER_AGENT = "cardflow/0.1"
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)
_NOT_CONNECTED = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)


class HttpProvider:
    """One provider. Implements `kernel.llm.provider.Provider`.

    `timeout_s` bounds a whole call: a server that sends a blank now and then keeps the client's
    own timeouts, which count from byte to byte, from ever ending it.
    """

    def __init__(
        self, client: httpx.AsyncClient, access: ProviderAccess, *, timeout_s: float | None = None
    ) -> None:
        self._client = client
        self._url = _url(access.base_url, "chat/completions")
        self._models_url = _url(access.base_url, "models")
        self._kind = access.kind
        self._timeout_s = timeout_s
        self._secret = _key(access).encode()
        self._quoted = _forms(self._secret)

    async def complete(self, request: CompletionRequest) -> Completion:
        status, headers, body = await self._exchange(request.body)
        return read_answer(status, headers, body, kind=self._kind)

    async def list_models(self) -> bytes:
        """The provider's list of its models, whatever it answers; empty for a refusal.

        Raises TransientError when there is no whole answer.
        """
        chunks = bytearray()
        try:
            async with (
                asyncio.timeout(_LIST_S),
                self._client.stream("GET", self._models_url) as response,
            ):
                _check_coding(response.headers.get("content-encoding", ""))
                async for chunk in response.aiter_bytes():
                    chunks += chunk
                    if len(chunks) > _LIST_MAX_BYTES:
                        return b""
        except (httpx.HTTPError, httpx.StreamError, aiohttp.ClientError, TimeoutError) as error:
            failure = self._failure(error)
            # Without its cause: aiohttp's errors show the headers that we sent, the key too.
            raise TransientError(f"the list of models can't be read: {failure}") from None
        if response.status_code >= 500:
            raise TransientError(
                f"the list of models: the provider answered {response.status_code}"
            )
        return bytes(chunks) if response.status_code == 200 else b""

    async def _exchange(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        """Status, headers by their lower-case names, and body."""
        try:
            return await self._answered(body)
        except (TimeoutError, httpx.HTTPError, httpx.StreamError, aiohttp.ClientError) as error:
            failure = self._failure(error)
        # Without its cause: aiohttp's errors show the headers that we sent, the key too.
        raise failure

    async def _answered(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        async with (
            asyncio.timeout(self._timeout_s),
            self._client.stream("POST", self._url, content=body) as response,
        ):
            _check_coding(response.headers.get("content-encoding", ""))
            chunks = bytearray()
            async for chunk in response.aiter_bytes():
                chunks += chunk
                if len(chunks) > REPLY_MAX_BYTES:
                    raise UncertainCall(f"the reply is larger than {REPLY_MAX_BYTES} bytes")
        headers = {
            name.decode("latin-1").lower(): self._redacted(value).decode("latin-1")
            for name, value in response.headers.raw
        }
        return response.status_code, headers, self._redacted(bytes(chunks))

    def _failure(self, error: Exception) -> TransientError:
        said = self._redacted(str(error).encode("utf-8", "replace")).decode("utf-8", "replace")
        what = f"{type(error).__name__}: {said[:_FAULT_MAX_CHARACTERS]}"
        if isinstance(error, TimeoutError):
            return UncertainCall(f"no whole answer within {self._timeout_s} s")
        if isinstance(error, _NOT_SENT) and not _was_sent(error):
            return TransientError(f"the provider can't be reached: {what}")
        return UncertainCall(f"the call was cut off: {what}")

    def _redacted(self, said: bytes) -> bytes:
        """Some providers quote the key that they refuse; parts of an answer stand in our texts."""
        if len(self._secret) >= KEY_MIN_CHARACTERS:
            for form in self._quoted:
                said = said.replace(form, b"[redacted]")
        return said


def _check_coding(named: str) -> None:
    """Codings on top of each other, or one that was not asked for, can unfold without bound.

    What one layer of gzip makes of a chunk of 16 KiB is 16 MiB at most, and looked at chunk by
    chunk.
    """
    if named.strip().lower() not in ("", "identity", *_CODINGS):
        raise UncertainCall(
            f"the reply is coded as {named[:40]!r}, expected {' or '.join(_CODINGS)}"
        )


def _forms(secret: bytes) -> tuple[bytes, ...]:
    """As it stands, and as JSON may write it."""
    spelt = json.dumps(secret.decode("ascii"))[1:-1].encode()
    return tuple(dict.fromkeys((secret, spelt, spelt.replace(b"/", rb"\/"))))


def _url(base_url: str, path: str) -> str:
    try:
        url = httpx.URL(f"{base_url.rstrip('/')}/{path}")
    except httpx.InvalidURL as error:
        raise SettingsError(f"the provider's URL {base_url!r} can't be read: {error}") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise SettingsError(f"the provider's URL {base_url!r} needs http:// or https:// and a host")
    return str(url)


def _was_sent(error: Exception) -> bool:
    """The aiohttp transport calls a connection that was lost after sending a ConnectTimeout."""
    cause = error.__cause__
    return isinstance(cause, aiohttp.ClientConnectionError) and not isinstance(
        cause, _NOT_CONNECTED
    )


def _key(access: ProviderAccess) -> str:
    """The key without the line break of the file that it was read from; empty for none."""
    key = access.api_key.get_secret_value().strip() if access.api_key else ""
    if not (key.isascii() and key.isprintable()):
        raise SettingsError(
            "the provider's key holds characters that no header takes; copy it again"
        )
    return key


@asynccontextmanager
async def open_http_provider(
    access: ProviderAccess, *, timeout_s: float, concurrency: int
) -> AsyncIterator[HttpProvider]:
    """A provider with a pool of its own.

    The aiohttp transport: httpx's own pool scans all its connections at every request, which
    costs more than the call itself above some 50 in flight.
    """
    headers = {
        "User-Agent": _USER_AGENT,
        "Content-Type": "application/json",
        "Accept-Encoding": ", ".join(_CODINGS),
        "X-OpenRouter-Title": "cardflow",
    }
    if key := _key(access):
        headers["Authorization"] = f"Bearer {key}"
    limits = httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
    async with httpx.AsyncClient(
        transport=AiohttpTransport(limits=limits),
        headers=headers,
        # Who does not get so far as to be connected in half the time was sent nothing, and is told.
        timeout=httpx.Timeout(timeout_s, connect=min(timeout_s / 2, 10.0)),
    ) as client:
        yield HttpProvider(client, access, timeout_s=timeout_s)
