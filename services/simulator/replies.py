"""The JSON of replies, in OpenRouter's form. Nothing here decides anything."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from services.simulator.asked import Asked
from services.simulator.completions import Completion
from services.simulator.pricing import (
    count_tokens,
    price,
    to_usd,
)

Headers = list[tuple[bytes, bytes]]
PROVIDER: Final = "Simulated"
_ERROR_TYPES: Final = {
    400: "invalid_request",
    401: "authentication",
    402: "insufficient_credits",
    403: "content_moderation",
    404: "not_found",
    408: "timeout",
    429: "rate_limit_exceeded",
    500: "server_error",
    502: "provider_unavailable",
    503: "provider_overloaded",
    504: "timeout",
}


@dataclass(frozen=True, slots=True)
class Reply:
    """What goes over the wire."""

    status: int
    body: bytes
    headers: Headers


@dataclass(frozen=True, slots=True)
class Generation:
    """One billed completion, as `GET /generation` tells of it."""

    id: str
    model: str
    prompt_tokens: int
    completion_tokens: int
    finish_reason: str
    created_s: int

    @property
    def nano_usd(self) -> int:
        return price(self.prompt_tokens, self.completion_tokens)


def generation_of(asked: Asked, completion: Completion, id_: str, created_s: int) -> Generation:
    tokens = count_tokens(completion.content or "")
    finish = completion.finish_reason
    return Generation(id_, asked.model, asked.prompt_tokens, tokens, finish, created_s)


def reply_json(content: object, status: int = 200, headers: Headers | None = None) -> Reply:
    body = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return Reply(status, body.encode("utf-8", "replace"), headers or [])


def reply_completion(
    generation: Generation, completion: Completion, headers: Headers | None = None
) -> Reply:
    choice: dict[str, Any] = {
        "index": 0,
        "finish_reason": completion.finish_reason,
        "native_finish_reason": completion.finish_reason,
        "message": {
            "role": "assistant",
            "content": completion.content,
            "refusal": completion.refusal,
        },
    }
    body = _envelope(generation, [choice] if completion.choices else [])
    body["usage"] = {
        "prompt_tokens": generation.prompt_tokens,
        "completion_tokens": generation.completion_tokens,
        "total_tokens": generation.prompt_tokens + generation.completion_tokens,
        "cost": to_usd(generation.nano_usd),
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }
    named = [(b"x-generation-id", generation.id.encode()), *(headers or [])]
    return reply_json(body, headers=named)


def reply_broken_choice(generation: Generation, message: str) -> Reply:
    """A 200 whose choice carries the error; nothing is billed."""
    choice = {
        "index": 0,
        "finish_reason": "error",
        "native_finish_reason": "error",
        "message": {"role": "assistant", "content": None, "refusal": None},
        "error": error_of(502, message),
    }
    return reply_json(
        _envelope(generation, [choice]), headers=[(b"x-generation-id", generation.id.encode())]
    )


def error_of(code: int, message: str, **metadata: object) -> dict[str, Any]:
    return {
        "code": code,
        "message": message,
        "metadata": {
            "error_type": _ERROR_TYPES.get(code, "unknown"),
            "provider_name": PROVIDER,
            **metadata,
        },
    }


def reply_error(
    status: int,
    message: str,
    *,
    retry_after_s: int | None = None,
    headers: Headers | None = None,
) -> Reply:
    """An error of the HTTP level, with Retry-After where one is named."""
    error = error_of(status, message)
    if retry_after_s is None:
        return reply_json({"error": error}, status, headers)
    error["availability"] = {"retryable": True, "retry_after": retry_after_s}
    return reply_json({"error": error}, status, [(b"retry-after", b"%d" % retry_after_s)])


def reply_rate_limited(limit: int, retry_after_s: int, reset_ms: int) -> Reply:
    """A true 429: the limit, what is left of it, and when (epoch, ms) there is room again."""
    named = {
        "X-RateLimit-Limit": str(limit),
        "X-RateLimit-Remaining": "0",
        "X-RateLimit-Reset": str(reset_ms),
    }
    error = error_of(429, f"Rate limit exceeded: {limit} requests per minute", headers=named)
    error["availability"] = {"retryable": True, "retry_after": retry_after_s}
    headers = [(name.lower().encode(), value.encode()) for name, value in named.items()]
    return reply_json({"error": error}, 429, [(b"retry-after", b"%d" % retry_after_s), *headers])


def _envelope(generation: Generation, choices: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": generation.id,
        "provider": PROVIDER,
        "model": generation.model,
        "object": "chat.completion",
        "created": generation.created_s,
        "choices": choices,
    }
