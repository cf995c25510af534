"""What a call asks for, read leniently from a chat-completions body."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from services.simulator.pricing import count_tokens
from services.simulator.settings import MODEL_ID

STAGES: Final = ("analysis", "cards")
CHAT: Final = "chat"
"""The stage of a call without a term in it: a ping, or a person with curl."""


class BadRequest(ValueError):
    """The body is no chat-completions call; a provider answers 400."""


@dataclass(frozen=True, slots=True)
class Asked:
    """`data`: the JSON object on the last line of the last user message, empty for chat.

    `identity` is the term as a caller names it, hint included; `message_hash` covers the words of
    the conversation, so that a repair call is another call and a re-send is the same.
    """

    model: str
    stage: str
    data: dict[str, Any]
    prompt_tokens: int
    max_tokens: int | None
    message_hash: bytes

    @property
    def term(self) -> str:
        return str(self.data.get("term", ""))

    @property
    def homonym(self) -> int | None:
        number = self.data.get("homonym")
        return number if isinstance(number, int) else None

    @property
    def hint(self) -> str | None:
        hint = self.data.get("hint")
        return hint if isinstance(hint, str) else None

    @property
    def term_key(self) -> str:
        return self.term if self.homonym is None else f"{self.term}#{self.homonym}"

    @property
    def identity(self) -> str:
        return f"{self.term_key}\0{self.hint or ''}"


def read_call(body: bytes) -> Asked:
    """The call in a body. Raises BadRequest with the words that a provider would answer."""
    try:
        call = json.loads(body)
    except ValueError as error:
        raise BadRequest(f"Request body is not valid JSON: {error}") from error
    messages = call.get("messages") if isinstance(call, dict) else None
    if not isinstance(messages, list) or not all(isinstance(m, dict) for m in messages):
        raise BadRequest('Input required: specify "messages" as a list of objects')
    if not messages:
        raise BadRequest('Input required: "messages" is empty')
    if call.get("stream"):
        raise BadRequest("Streaming is not simulated: leave out stream, or set it to false")
    texts = [_text(message) for message in messages]
    data = _data(messages, texts)
    max_tokens = call.get("max_tokens")
    return Asked(
        model=str(call.get("model") or MODEL_ID),
        stage=_stage(call, data),
        data=data,
        prompt_tokens=sum(map(count_tokens, texts)),
        max_tokens=max_tokens if isinstance(max_tokens, int) and max_tokens > 0 else None,
        message_hash=_hash(messages, texts),
    )


def _text(message: dict[str, Any]) -> str:
    """The content, which may come in parts."""
    content = message.get("content")
    if isinstance(content, list):
        parts = (part.get("text") for part in content if isinstance(part, dict))
        return "\n".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else ""


def _data(messages: list[dict[str, Any]], texts: list[str]) -> dict[str, Any]:
    """The newest line with a term, looked for from the end: repair calls may add messages."""
    for message, text in zip(reversed(messages), reversed(texts), strict=True):
        if message.get("role") == "user":
            for found in _objects(text):
                if isinstance(found.get("term"), str) and found["term"].strip():
                    return found
    return {}


def _objects(text: str) -> Iterator[dict[str, Any]]:
    for line in reversed(text.splitlines()):
        if line.lstrip().startswith("{"):
            try:
                found = json.loads(line)
            except ValueError:
                continue
            yield found


def _stage(call: dict[str, Any], data: dict[str, Any]) -> str:
    """The name of the reply schema; without a known one, what the data looks like."""
    if not data:
        return CHAT
    wanted = call.get("response_format")
    schema = wanted.get("json_schema") if isinstance(wanted, dict) else None
    name = schema.get("name") if isinstance(schema, dict) else None
    if name in STAGES:
        return str(name)
    return "cards" if "card_types" in data else "analysis"


def _hash(messages: list[dict[str, Any]], texts: list[str]) -> bytes:
    spoken = (t for m, t in zip(messages, texts, strict=True) if m.get("role") != "system")
    return hashlib.blake2b("\0".join(spoken).encode("utf-8", "replace"), digest_size=8).digest()
