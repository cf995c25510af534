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
    Unavailable,
    UncertainCall,
)
from services.kernel.llm.provider import Completion, UnfitCompletion
from services.kernel.llm.rate_headers import exhausted_for_s
from services.kernel.llm.retry_after import retry_after_s

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
    if status != 200 or error:
        raise _refusal(status, headers, error if isinstance(error, dict) else {}, body)
    if answer is None:
        raise UncertainCall(f"the provider sent no JSON: {_excerpt(_decoded(body))}")
    return _completion(answer, headers, kind)


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
    if not isinstance(choice, dict):
        raise UnfitCompletion("no_choices", "the reply has no choices", base)
    finish = choice.get("finish_reason")
    if finish in ("content_filter", "length"):
        raise UnfitCompletion(f"finish_{finish}", f"it ended by {finish}", base)
    if finish == "error" or choice.get("error"):
        detail = _excerpt(str(choice.get("error") or finish))
        raise UnfitCompletion("finish_error", f"it ended by {detail}", base)
    message = choice.get("message")
    message = message if isinstance(message, dict) else {}
    if message.get("refusal"):
        raise UnfitCompletion("refused", _excerpt(str(message["refusal"])), base)
    text = _text(message.get("content"))
    if text is None or not text.strip():
        raise UnfitCompletion("empty", "the reply has no text", base)
    return base.model_copy(update={"text": text})


def _refusal(
    status: int, headers: Mapping[str, str], error: dict[str, Any], body: bytes
) -> Exception:
    """What an answer without a completion means. An `error` can stand in a 200, too."""
    code = _code(error, status)
    message = str(error.get("message") or "") or _decoded(body)
    what = f"the provider answered {code}: {_excerpt(message)}"
    hinted = retry_after_s(headers)
    match code:
        case 503 if hinted is None:
            return Unavailable(what, retry_after_s=_THROTTLED_WAIT_S)
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
            return CallRefused(what, reason=f"provider_{code}")
        case _:
            return UncertainCall(what, retry_after_s=hinted)


def _code(error: dict[str, Any], status: int) -> int:
    """The status, but where it hides a fault: a 200 can hold an error with a code of its own."""
    code = error.get("code")
    if status >= 400:
        return status
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
