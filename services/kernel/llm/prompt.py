"""A prompt and the request that it becomes; the fingerprint over all that determines a reply."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from services.kernel.contracts.identity import fingerprint
from services.kernel.settings import ProviderAccess


@dataclass(frozen=True)
class Prompt:
    """What one stage asks. The static part (`system`, `reply_schema`) first, the data last.

    `data` is the untrusted input: it goes into the user message as one line of JSON, and nowhere
    else. `name` names the reply's schema.
    """

    name: str
    version: str
    system: str
    task: str
    reply_schema: Mapping[str, Any]
    data: Mapping[str, Any]


@dataclass(frozen=True)
class CompletionRequest:
    """The bytes to send, the same for the same prompt, and their fingerprint."""

    body: bytes
    fingerprint: str
    model: str


def completion_request(
    prompt: Prompt, access: ProviderAccess, *, max_tokens: int, temperature: float
) -> CompletionRequest:
    """Serialised canonically, so that a provider's own cache knows a re-send.

    The kind of provider is part of the fingerprint: a simulated answer never stands in for a real
    one. Its address is not: the same model behind another port is the same model.
    """
    body: dict[str, Any] = {
        "model": access.model,
        "messages": [
            {"role": "system", "content": prompt.system},
            {"role": "user", "content": f"{prompt.task}\n{_canonical(prompt.data)}"},
        ],
        "response_format": {
            "type": "json_schema",
            "json_schema": {
                "name": prompt.name,
                "strict": True,
                "schema": prompt.reply_schema,
            },
        },
        "max_tokens": max_tokens,
        "temperature": temperature,
    }
    if access.kind == "openrouter":
        body |= {
            "provider": {"require_parameters": True},
            # Small-context endpoints otherwise cut the middle out of a prompt.
            "plugins": [{"id": "context-compression", "enabled": False}],
            "reasoning": {"enabled": False},
            "session_id": f"cardflow-{prompt.name}-{prompt.version}",
        }
    raw = _canonical(body).encode()
    return CompletionRequest(raw, fingerprint(access.kind, prompt.version, raw), access.model)


def _canonical(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
