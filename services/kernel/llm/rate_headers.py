"""What the headers of an answer say about the calls that are left, in all the forms there are.

X-RateLimit-Remaining: 0                  with X-RateLimit-Reset
X-RateLimit-Remaining-Requests: 0         with X-RateLimit-Reset-Requests; -Tokens likewise
RateLimit-Remaining: 0                    with RateLimit-Reset
RateLimit: "default";r=0;t=30             drafts of the IETF, 7 and later
RateLimit: limit=100, remaining=0, reset=30   and before
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator, Mapping
from typing import Final

_KINDS: Final = (
    ("x-ratelimit-remaining", "x-ratelimit-reset"),
    ("x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"),
    ("x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"),
    ("ratelimit-remaining", "ratelimit-reset"),
)
_REMAINING: Final = re.compile(r"\b(?:r|remaining)=(\d+)\b", re.ASCII)
_RESET: Final = re.compile(r"\b(?:t|reset)=(\d+)\b", re.ASCII)
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", re.ASCII)
_UNITS_S: Final = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
_LONGEST_TEXT: Final = 200
_EPOCH_FROM: Final = 1e9
_EPOCH_MS_FROM: Final = 1e11
"""Smaller numbers are seconds from now, larger ones a Unix time in seconds or milliseconds."""
_SENSIBLE_S: Final = 86_400.0


def exhausted_for_s(headers: Mapping[str, str], *, now: float | None = None) -> float | None:
    """Seconds until calls are possible again; None while some are left, or when nobody says.

    `headers` are asked for lower-case names. Of several limits that are used up the longest
    counts. A time that has passed, or is further off than a day, is nonsense.
    """
    at = time.time() if now is None else now
    waits = [
        wait_s
        for remaining, reset in _said(headers)
        if _number(remaining) == 0
        and (wait_s := _wait_s(reset, at)) is not None
        and 0 < wait_s <= _SENSIBLE_S
    ]
    return max(waits, default=None)


def _said(headers: Mapping[str, str]) -> Iterator[tuple[str | None, str | None]]:
    """What is left and when it is renewed, of each limit."""
    for remaining, reset in _KINDS:
        yield headers.get(remaining), headers.get(reset)
    for policy in re.split(r",(?=\s*\")", headers.get("ratelimit", "")[:_LONGEST_TEXT]):
        left, renewed = _REMAINING.search(policy), _RESET.search(policy)
        if left and renewed:
            yield left[1], renewed[1]


def _wait_s(value: str | None, now: float) -> float | None:
    """`30`, `6m0s`, `850ms`, or a Unix time in seconds or milliseconds."""
    if value is None or len(value) > _LONGEST_TEXT:
        return None
    number = _number(value)
    if number is None:
        parts = _DURATION.findall(value)
        if not parts or "".join(amount + unit for amount, unit in parts) != value.strip():
            return None
        return sum(float(amount) * _UNITS_S[unit] for amount, unit in parts)
    if number >= _EPOCH_MS_FROM:
        return number / 1000 - now
    return number - now if number >= _EPOCH_FROM else number


def _number(value: str | None) -> float | None:
    try:
        number = float(value) if value is not None else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None
