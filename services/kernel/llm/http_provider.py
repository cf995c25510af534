"""Any server of the chat-completions protocol, over HTTP. No retries here: they have one owner.

Protocol facts and the table of what to do about each answer: OpenRouter's API reference.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal, InvalidOperation
from typing import Any

import httpx
from httpx_aiohttp import AiohttpTransport

from services.kernel.contracts.provenance import Usage
from services.kernel.errors import (
    PermanentError,
    ProviderBlocked,
    Throttled,
    TransientError,
    UncertainCall,
)
from services.kernel.llm.prompt import CompletionRequest
from services.kernel.llm.provider import Completion, UnfitCompletion
from services.kernel.llm.retry_after import retry_after_s
from services.kernel.settings import ProviderAccess

REPLY_MAX_BYTES = 2 * 1024 * 1024
"""A completion is some 10 KiB; more is a fault, and must not fill our memory."""

_BLOCKED_WAIT_S = 30.0
_THROTTLED_WAIT_S = 5.0
_USER_AGENT = "cardflow/0.1"
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)


class HttpProvider:
    """One provider. Implements `kernel.llm.provider.Provider`."""

    def __init__(self, client: httpx.AsyncClient, access: ProviderAccess) -> None:
        self._client = client
        self._url = f"{access.base_url.rstrip('/')}/chat/completions"
        self._kind = access.kind

    async def complete(self, request: CompletionRequest) -> Completion:
        status, headers, body = await self._exchange(request.body)
        answer = _object_or_none(body)
        error = answer.get("error") if answer else None
        if status != httpx.codes.OK or error:
            raise _refusal(status, headers, error if isinstance(error, dict) else {}, body)
        if answer is None:
            raise UncertainCall(f"the provider sent no JSON: {_excerpt(body)}")
        return self._completion(answer, headers)

    async def _exchange(self, body: bytes) -> tuple[int, httpx.Headers, bytes]:
        try:
            async with self._client.stream("POST", self._url, content=body) as response:
                chunks = bytearray()
                async for chunk in response.aiter_bytes():
                    chunks += chunk
                    if len(chunks) > REPLY_MAX_BYTES:
                        raise UncertainCall(f"the reply is larger than {REPLY_MAX_BYTES} bytes")
                return response.status_code, response.headers, bytes(chunks)
        except _NOT_SENT as error:
            raise TransientError(f"the provider can't be reached: {error!r}") from error
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise UncertainCall(f"the call was cut off: {error!r}") from error

    def _completion(self, answer: dict[str, Any], headers: httpx.Headers) -> Completion:
        """Checked in the order in which an answer can be wrong."""
        base = Completion(
            text="",
            model=str(answer.get("model") or "unknown"),
            provider=str(answer.get("provider") or self._kind),
            generation_id=headers.get("x-generation-id") or _text(answer.get("id")),
            usage=_usage(answer.get("usage")),
        )
        choices = answer.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(choice, dict):
            raise UnfitCompletion("no_choices", "the reply has no choices", base)
        finish = choice.get("finish_reason")
        if choice.get("error") or finish in ("error", "content_filter", "length"):
            detail = choice.get("error") or finish
            raise UnfitCompletion(f"finish_{finish or 'error'}", f"it ended by {detail}", base)
        message = choice.get("message")
        message = message if isinstance(message, dict) else {}
        if message.get("refusal"):
            raise UnfitCompletion("refused", _excerpt(str(message["refusal"]).encode()), base)
        text = message.get("content")
        if not isinstance(text, str) or not text.strip():
            raise UnfitCompletion("empty", "the reply has no text", base)
        return base.model_copy(update={"text": text})


def _refusal(status: int, headers: httpx.Headers, error: dict[str, Any], body: bytes) -> Exception:
    """What an answer without a completion means. An `error` can stand in a 200, too."""
    code = _code(error, status)
    what = (
        f"the provider answered {code}: {_excerpt(str(error.get('message', '')).encode() or body)}"
    )
    hinted = retry_after_s(headers)
    match code:
        case 429 | 503:
            return Throttled(what, retry_after_s=hinted or _THROTTLED_WAIT_S)
        case 402 if hinted is not None:
            return Throttled(what, retry_after_s=hinted)
        case 401 | 402:
            return ProviderBlocked(
                f"{what}; check the key and the credit", retry_after_s=_BLOCKED_WAIT_S
            )
        case 403:
            return PermanentError(what, reason="moderated")
        case 400 | 404 | 413 | 422:
            return PermanentError(what, reason=f"provider_{code}")
        case _:
            return UncertainCall(what, retry_after_s=hinted)


def _code(error: dict[str, Any], status: int) -> int:
    code = error.get("code")
    if isinstance(code, int) and not isinstance(code, bool) and 400 <= code <= 599:
        return code
    return status


def _usage(raw: Any) -> Usage:
    """Missing or absurd numbers count as zero: a reply is not thrown away for its bookkeeping."""
    usage = raw if isinstance(raw, dict) else {}
    prompt_details = usage.get("prompt_tokens_details")
    completion_details = usage.get("completion_tokens_details")
    return Usage(
        prompt_tokens=_count(usage.get("prompt_tokens")),
        completion_tokens=_count(usage.get("completion_tokens")),
        reasoning_tokens=_count(_field(completion_details, "reasoning_tokens")),
        cached_tokens=_count(_field(prompt_details, "cached_tokens")),
        cost_usd=_money(usage.get("cost")),
    )


def _field(raw: Any, name: str) -> Any:
    return raw.get(name) if isinstance(raw, dict) else None


def _count(raw: Any) -> int:
    return raw if isinstance(raw, int) and not isinstance(raw, bool) and raw > 0 else 0


def _money(raw: Any) -> Decimal:
    if isinstance(raw, bool) or not isinstance(raw, int | float | str | Decimal):
        return Decimal(0)
    try:
        amount = Decimal(str(raw))
    except InvalidOperation:
        return Decimal(0)
    return amount if amount.is_finite() and amount > 0 else Decimal(0)


def _object_or_none(body: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(body, parse_float=Decimal)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _excerpt(body: bytes) -> str:
    return " ".join(body[:300].decode("utf-8", "replace").split())


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
        "X-OpenRouter-Title": "cardflow",
    }
    if access.api_key is not None:
        headers["Authorization"] = f"Bearer {access.api_key.get_secret_value()}"
    limits = httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
    async with httpx.AsyncClient(
        transport=AiohttpTransport(limits=limits),
        headers=headers,
        timeout=httpx.Timeout(timeout_s, connect=min(timeout_s, 10.0)),
    ) as client:
        yield HttpProvider(client, access)
