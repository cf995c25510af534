"""What a server of the chat-completions protocol answered: a completion, or what went wrong.

Pure. Protocol facts and the table of what to do about each answer: OpenRouter's API reference.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from services.kernel.contracts.provenance import Usage
from services.kernel.errors import (
    CallRefused,
    PermanentError,
    ProviderBlocked,
    Throttled,
    TransientError,
    Unavailable,
    UncertainCall,
)
from services.kernel.llm.provider import Completion, UnfitCompletion
from services.kernel.llm.provider_errors import is_moderated, is_retryable, status_of, wait_s
from services.kernel.llm.rate_headers import exhausted_for_s

USAGE_MAX_TOKENS = 10**9
USAGE_MAX_USD = Decimal(1_000)
"""No single call costs this much: a larger number is a fault of the bookkeeping, not a bill."""

_BLOCKED_WAIT_S = 30.0
_THROTTLED_WAIT_S = 5.0
_EXCERPT_CHARACTERS = 300


def read_answer(status: int, headers: Mapping[str, str], body: bytes, *, kind: str) -> Completion:
    """The completion in an answer; `kind` names the provider where it does not name itself.

    `headers` are asked for lower-case names. Raises what `kernel.llm.provider.Provider` raises.
    """
    answer = _object_or_none(body)
    error = answer.get("error") if answer else None
    if not 200 <= status < 300 or (error and not _is_billed(answer)):
        raise _refusal(status, headers, error, body)
    if answer is None:
        raise UncertainCall(f"the provider sent no JSON: {_excerpt(_decoded(body))}")
    return _completion(answer, headers, kind)


def _is_billed(answer: dict[str, Any] | None) -> bool:
    """What has a price was answered, however badly; without one an error decides by its type."""
    return answer is not None and _usage(answer.get("usage")).cost_usd > 0


def _completion(answer: dict[str, Any], headers: Mapping[str, str], kind: str) -> Completion:
    """Checked in the order in which an answer can be wrong."""
    base = Completion(
        text="",
        model=_text(answer.get("model")) or "unknown",
        provider=_text(answer.get("provider")) or kind,
        generation_id=headers.get("x-generation-id") or _text(answer.get("id")),
        usage=_usage(answer.get("usage")),
        exhausted_for_s=exhausted_for_s(headers),
    )
    choices = answer.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    failure = answer.get("error")
    if not failure and not isinstance(choice, dict):
        raise UnfitCompletion("no_choices", "the reply has no choices", base)
    choice = choice if isinstance(choice, dict) else {}
    finish = choice.get("finish_reason")
    if failure or choice.get("error") or finish == "error":
        raise _failed(failure or choice.get("error") or finish, headers, base)
    if finish in ("content_filter", "length"):
        raise UnfitCompletion(f"finish_{finish}", f"it ended by {finish}", base)
    message = choice.get("message")
    message = message if isinstance(message, dict) else {}
    if message.get("refusal"):
        raise UnfitCompletion("refused", _excerpt(str(message["refusal"])), base)
    text = _text(_joined(message.get("content")))
    if text is None or not text.strip():
        raise UnfitCompletion("empty", "the reply has no text", base)
    return base.model_copy(update={"text": text})


def _joined(content: Any) -> Any:
    """A text, which may come in parts."""
    if not isinstance(content, list):
        return content
    texts = (part.get("text") for part in content if isinstance(part, dict))
    return "".join(text for text in texts if isinstance(text, str))


def _failed(failure: Any, headers: Mapping[str, str], base: Completion) -> Exception:
    """The provider broke off. What it bills for that is paid; else the error's type decides."""
    if base.usage.cost_usd > 0:
        return UnfitCompletion("finish_error", f"it ended by {_excerpt(str(failure))}", base)
    return _refusal(200, headers, failure, str(failure).encode("utf-8", "replace"))


def _refusal(status: int, headers: Mapping[str, str], raw: Any, body: bytes) -> Exception:
    """What an answer without a completion means. An `error` can stand in a 200, too."""
    error = raw if isinstance(raw, dict) else {}
    code = status_of(status, error)
    message = str(error.get("message") or "") or _decoded(body)
    what = f"the provider answered {code}: {_excerpt(message)}"
    hinted = wait_s(headers, error)
    if (held_up := _held_up(code, what, hinted, error)) is not None:
        return held_up
    if (given_up := _given_up(code, what, error)) is not None:
        return given_up
    if code in (409, 423, 425):
        return TransientError(what, retry_after_s=hinted)
    return UncertainCall(what, retry_after_s=hinted)


def _held_up(code: int, what: str, hinted: float | None, error: dict[str, Any]) -> Throttled | None:
    """No failure of this call: nobody is served at the moment, or nobody with our key."""
    match code:
        case 503 if hinted is None:
            return Unavailable(what, retry_after_s=_THROTTLED_WAIT_S)
        case 429 | 503:
            return Throttled(what, retry_after_s=hinted or _THROTTLED_WAIT_S)
        case 402 if hinted is not None:
            return Throttled(what, retry_after_s=hinted)
        case 401 | 402:
            advice = "check the key and the credit"
            return ProviderBlocked(f"{what}; {advice}", retry_after_s=_BLOCKED_WAIT_S)
        case 403 if not is_moderated(error):
            advice = "check what the key may do"
            return ProviderBlocked(f"{what}; {advice}", retry_after_s=_BLOCKED_WAIT_S)
        case _ if code < 300 and is_retryable(error) and hinted is not None:
            return Throttled(what, retry_after_s=hinted)
        case _:
            return None


def _given_up(code: int, what: str, error: dict[str, Any]) -> PermanentError | None:
    """The same call would be refused again."""
    match code:
        case 400 | 403 if is_moderated(error):
            return PermanentError(what, reason="moderated")
        case 408 | 409 | 423 | 424 | 425 | 499:
            return None  # Begun and broken off, or not its turn.
        case _ if 300 <= code < 400:
            return PermanentError(f"{what}; correct the base URL", reason=f"provider_{code}")
        case _ if 400 <= code < 500:
            return CallRefused(what, reason=f"provider_{code}")
        case _ if code < 300 and is_retryable(error) is False:
            return PermanentError(what, reason="provider_error")
        case _:
            return None


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
    if isinstance(raw, bool) or not isinstance(raw, int):
        return 0
    return raw if 0 < raw <= USAGE_MAX_TOKENS else 0


def _money(raw: Any) -> Decimal:
    if isinstance(raw, bool) or not isinstance(raw, int | float | str | Decimal):
        return Decimal(0)
    amount = _decimal(str(raw))
    return amount if amount.is_finite() and 0 < amount <= USAGE_MAX_USD else Decimal(0)


def _decimal(text: str) -> Decimal:
    """NaN for what no Decimal holds, such as 1e99999999999999999999."""
    try:
        return Decimal(text)
    except InvalidOperation:
        return Decimal("NaN")


def _object_or_none(body: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(body, parse_float=_decimal)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _decoded(body: bytes) -> str:
    return body.decode("utf-8", "replace")


def _text(value: Any) -> str | None:
    """JSON can spell half a surrogate pair, which nothing of ours can write: it becomes U+FFFD."""
    if not isinstance(value, str):
        return None
    return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _excerpt(text: str) -> str:
    return " ".join((_text(text[:_EXCERPT_CHARACTERS]) or "").split())
