"""A prompt and the request that it becomes; the fingerprint over all that determines a reply."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

from services.kernel.contracts.identity import fingerprint
from services.kernel.contracts.term import Revision
from services.kernel.model_settings import StageSettings
from services.kernel.provider_access import ProviderAccess

ANSWER_SHOWN_CHARACTERS = 8_000
"""Of an unfit answer, when it is shown to its model: a fit one is about half as long."""
FAULT_MAX_CHARACTERS = 500

_AGAIN = "Answer the same question again, with the whole JSON object and nothing else."


@dataclass(frozen=True)
class Prompt:
    """What one stage asks. The static part (`system`, `reply_schema`) first, the data last.

    `data` is the untrusted input: it goes into the user message as one line of JSON, and nowhere
    else. `name` names the reply's schema. `model` is asked instead of the settings' one.
    `revision` over 1 asks anew what was asked before in the same words.
    """

    name: str
    version: str
    system: str
    task: str
    reply_schema: Mapping[str, Any]
    data: Mapping[str, Any]
    model: str | None = None
    revision: int = 1

    def revised(self, revision: Revision | None, *, stage: Literal[1, 2]) -> Prompt:
        """This prompt as the given stage asks it for a term of a revision; as it is without one.

        The stage that is regenerated asks anew. A later one need not: what it is given has
        changed, or else the answer that is known still fits. The model is for both.
        """
        if revision is None or stage < revision.stage:
            return self
        number = revision.number if stage == revision.stage else 1
        return replace(self, model=revision.model, revision=number)


@dataclass(frozen=True)
class CompletionRequest:
    """The bytes to send, the same for the same prompt, and their fingerprint.

    `prompt` and `prompt_version` name what is asked.
    """

    body: bytes
    fingerprint: str
    model: str
    prompt: str | None = None
    prompt_version: str | None = None


@dataclass(frozen=True)
class Correction:
    """What was wrong with an answer, for the model to see. `answer` is empty when it had no text.

    Both parts are data: they come from a model, or quote one.
    """

    answer: str
    reason: str
    detail: str

    def as_text(self) -> str:
        """What was wrong, quoted as JSON, bounded."""
        fault = {"reason": self.reason, "detail": self.detail[:FAULT_MAX_CHARACTERS]}
        return f"An answer to this could not be used: {_canonical(fault)}."


@dataclass(frozen=True)
class Inquiry:
    """One question, whoever will be asked it.

    Its fingerprint is that of the request to `first`, the provider and model of first choice, and
    names the `fallbacks`: what one of them answers in its place is an answer to the same question.
    A model that the prompt itself names has none. So is the answer to a question that `repairs`
    another one, with a `correction` or with more room. `max_tokens_cap` bounds that room.
    """

    prompt: Prompt
    first: ProviderAccess
    max_tokens: int
    temperature: float
    max_tokens_cap: int = 0
    correction: Correction | None = None
    repairs: Inquiry | None = None
    fallbacks: tuple[ProviderAccess, ...] = ()

    @classmethod
    def of(
        cls,
        prompt: Prompt,
        first: ProviderAccess,
        stage: StageSettings,
        fallbacks: tuple[ProviderAccess, ...] = (),
    ) -> Inquiry:
        """The question as a stage asks it by its settings."""
        return cls(
            prompt,
            first,
            stage.max_tokens,
            stage.temperature,
            stage.max_tokens_cap,
            fallbacks=fallbacks,
        )

    @property
    def fingerprint(self) -> str:
        if self.repairs is not None:
            return self.repairs.fingerprint
        return self._first_request.fingerprint

    def request(self, access: ProviderAccess) -> CompletionRequest:
        """The bytes for one provider and model, under the fingerprint of the question."""
        if access == self.first:
            return replace(self._first_request, fingerprint=self.fingerprint)
        request = self._request(access, replace(self.prompt, model=None))
        return replace(request, fingerprint=self.fingerprint)

    @cached_property
    def _first_request(self) -> CompletionRequest:
        return self._request(self.first, self.prompt)

    def _request(self, access: ProviderAccess, prompt: Prompt) -> CompletionRequest:
        return completion_request(
            prompt,
            access,
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            correction=self.correction,
            fallbacks=() if self.prompt.model else self.fallbacks,
        )


def completion_request(
    prompt: Prompt,
    access: ProviderAccess,
    *,
    max_tokens: int,
    temperature: float,
    correction: Correction | None = None,
    fallbacks: Sequence[ProviderAccess] = (),
) -> CompletionRequest:
    """Serialised canonically, so that a provider's own cache knows a re-send.

    The kind of provider is part of the fingerprint: a simulated answer never stands in for a real
    one. Its address is not: the same model behind another port is the same model. A revision's
    number is: its completion is another one, although the provider is asked in the same bytes. And
    so is whoever may answer in its place, in their order.
    """
    model = prompt.model or access.model
    body: dict[str, Any] = {
        "model": model,
        "messages": _messages(prompt, correction),
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
    anew = (f"revision {prompt.revision}",) if prompt.revision > 1 else ()
    instead = tuple(f"fallback {other.kind} {other.model}" for other in fallbacks)
    return CompletionRequest(
        raw,
        fingerprint(access.kind, prompt.version, raw, *anew, *instead),
        model,
        prompt.name,
        prompt.version,
    )


def _messages(prompt: Prompt, correction: Correction | None) -> list[dict[str, str]]:
    """The roles alternate: some templates of local models refuse two users in a row."""
    task, data = prompt.task, _canonical(prompt.data)
    if correction is None:
        spoken = [f"{task}\n{data}"]
    elif not correction.answer:
        spoken = [f"{task} {correction.as_text()}\n{data}"]
    else:
        answer = correction.answer[:ANSWER_SHOWN_CHARACTERS]
        spoken = [f"{task}\n{data}", answer, f"{correction.as_text()} {_AGAIN}"]
    roles = ("system", "user", "assistant", "user")
    texts = [prompt.system, *spoken]
    return [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]


def _canonical(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
