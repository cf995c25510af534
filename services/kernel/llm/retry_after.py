"""How long a provider asks us to wait, in all the forms it says so."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

LONGEST_S = 120.0
"""Nobody makes us wait longer than this on one hint; after it we ask again."""


def retry_after_s(headers: Mapping[str, str], *, now: float | None = None) -> float | None:
    """The longest of the hints, in seconds, capped; None without any sensible one.

    `Retry-After` in seconds or as an HTTP date (RFC 9110 §10.2.3), `retry-after-ms`, and
    `X-RateLimit-Reset` as a Unix time in milliseconds (OpenRouter).
    """
    at = time.time() if now is None else now
    hints = [
        _seconds_or_date(headers.get("retry-after"), at),
        _scaled(headers.get("retry-after-ms"), 1e-3),
        _reset(headers.get("x-ratelimit-reset"), at),
    ]
    sensible = [hint for hint in hints if hint is not None and math.isfinite(hint) and hint > 0]
    return min(max(sensible), LONGEST_S) if sensible else None


def _seconds_or_date(value: str | None, now: float) -> float | None:
    seconds = _scaled(value, 1.0)
    if seconds is not None or value is None:
        return seconds
    try:
        return parsedate_to_datetime(value).timestamp() - now
    except (ValueError, OverflowError):
        return None


def _reset(value: str | None, now: float) -> float | None:
    reset = _scaled(value, 1e-3)
    return None if reset is None else reset - now


def _scaled(value: str | None, factor: float) -> float | None:
    try:
        return None if value is None else float(value) * factor
    except ValueError:
        return None
