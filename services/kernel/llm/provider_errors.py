"""Which failure an error of a provider tells of, and how long it asks us to wait. Pure.

The error types are those of OpenRouter's API reference, and what other servers of the protocol say
in their place. The list is open at both ends: an unknown type tells nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from services.kernel.llm.retry_after import retry_after_s

_TYPES: Final[Mapping[int, tuple[str, ...]]] = {
    400: (
        *("invalid_request", "invalid_request_error", "invalid_prompt", "precondition_failed"),
        *("context_length_exceeded", "token_limit_exceeded", "string_too_long"),
    ),
    401: ("authentication", "authentication_error", "invalid_api_key"),
    402: ("payment_required", "insufficient_credits", "insufficient_quota"),
    403: ("permission_denied", "permission_error"),
    404: ("not_found", "not_found_error", "model_not_found"),
    408: ("timeout",),
    413: ("payload_too_large", "request_too_large"),
    422: ("unprocessable",),
    429: ("rate_limit_exceeded", "rate_limit_error"),
    500: ("server", "server_error", "api_error"),
    502: ("provider_unavailable",),
    503: ("provider_overloaded", "overloaded_error"),
}
_STATUS_OF: Final = {name: status for status, names in _TYPES.items() for name in names}
_MODERATION: Final = frozenset(
    ("content_policy_violation", "content_moderation", "content_filter", "refusal")
)
_MODERATED_METADATA: Final = frozenset(("flagged_input", "reasons"))
_MODERATED_WORDS: Final = ("moderat", "flagged", "content policy", "content management policy")


def status_of(status: int, error: Mapping[str, Any]) -> int:
    """The status, but where it hides a fault: a 200 can hold an error of its own code or type.

    A 429 for credit that is used up (OpenAI's way) is a 402: waiting does not help.
    """
    named = next((_STATUS_OF[name] for name in _names(error) if name in _STATUS_OF), None)
    if status == 429 and named == 402:
        return 402
    if not 200 <= status < 300:
        return status
    code = error.get("code")
    if isinstance(code, str) and code.isdecimal():
        code = int(code)
    if isinstance(code, int) and not isinstance(code, bool) and 400 <= code <= 599:
        return code
    if named is None and is_moderated(error):
        return 403
    return named or status


def is_moderated(error: Mapping[str, Any]) -> bool:
    """The input was found indecent; other 403s are about us, and concern every term."""
    if _MODERATION.intersection(_names(error)):
        return True
    message = error.get("message")
    said = message.lower() if isinstance(message, str) else ""
    named = _MODERATED_METADATA.intersection(_mapping(error.get("metadata")))
    return bool(named) or any(word in said for word in _MODERATED_WORDS)


def is_retryable(error: Mapping[str, Any]) -> bool | None:
    """What the provider says itself about trying again; None when it says nothing."""
    said = _mapping(error.get("availability")).get("retryable")
    return said if isinstance(said, bool) else None


def wait_s(headers: Mapping[str, str], error: Mapping[str, Any]) -> float | None:
    """The longest of the hints in headers and body, in seconds, capped; None without any."""
    quoted = _mapping(_mapping(error.get("metadata")).get("headers"))
    named = {str(name).lower(): str(value) for name, value in quoted.items()}
    hints = [
        retry_after_s(headers),
        retry_after_s(named),
        _seconds(_mapping(error.get("availability")).get("retry_after")),
    ]
    return max((hint for hint in hints if hint is not None), default=None)


def _seconds(value: Any) -> float | None:
    """JSON numbers with a fraction come as Decimal; one too large for a float is infinite."""
    return None if value is None else retry_after_s({"retry-after": str(value)})


def _names(error: Mapping[str, Any]) -> Iterator[str]:
    """Where a type may stand, the most exact first."""
    metadata = _mapping(error.get("metadata"))
    for place in (metadata.get("error_type"), error.get("code"), error.get("type")):
        if isinstance(place, str):
            yield place.lower()


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
