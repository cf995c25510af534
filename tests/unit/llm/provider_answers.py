"""What servers of the chat-completions protocol answer, and a provider that is answered so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from asking_fakes import access

from services.kernel.errors import PipelineError
from services.kernel.llm.http_provider import HttpProvider
from services.kernel.llm.prompt import CompletionRequest
from services.kernel.llm.provider import Completion
from services.kernel.provider_access import ProviderAccess

REQUEST = CompletionRequest(b'{"model":"test/model"}', "f" * 64, "test/model")
USAGE = {"prompt_tokens": 100, "completion_tokens": 50, "cost": 0.0021}


def choice(content: Any = "yes", *, finish_reason: Any = "stop", **values: Any) -> dict[str, Any]:
    return {
        "finish_reason": finish_reason,
        "message": {"role": "assistant", "content": content},
        **values,
    }


def answer(*choices: Any, **values: Any) -> dict[str, Any]:
    return {
        "id": "gen-1",
        "model": "test/model-served",
        "provider": "Test",
        "choices": list(choices) or [choice()],
        "usage": USAGE,
        **values,
    }


def error(code: Any = None, message: Any = "it went wrong", **values: Any) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, **values}}


def provider(
    response: Callable[[httpx.Request], httpx.Response] | httpx.Response,
    to: ProviderAccess | None = None,
) -> HttpProvider:
    respond = response if callable(response) else lambda _request: response
    client = httpx.AsyncClient(transport=httpx.MockTransport(respond))
    return HttpProvider(client, to or access())


async def completed(response: httpx.Response) -> Completion:
    return await provider(response).complete(REQUEST)


async def failure(response: Callable[[httpx.Request], httpx.Response] | httpx.Response) -> Any:
    with pytest.raises(PipelineError) as raised:
        await provider(response).complete(REQUEST)
    return raised.value
