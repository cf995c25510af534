"""How long to wait, said in as many ways as providers have found: for storms of 429s."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Final

from services.simulator.fate import pick

Headers = list[tuple[bytes, bytes]]

HINTS: Final = ("seconds", "date", "ms", "reset", "absurd", "zero", "negative", "garbage", "none")
_WAIT_S: Final = 2


def odd_hint(seed: int, nth: int, now_s: float) -> tuple[str, Headers]:
    """The kind and the headers of the `nth` refusal of a storm, decided by its seed."""
    kind = pick(HINTS, "storm", seed, nth)
    return kind, [(name.encode(), value.encode()) for name, value in _headers(kind, now_s)]


def _headers(kind: str, now_s: float) -> list[tuple[str, str]]:
    match kind:
        case "seconds":
            return [("retry-after", str(_WAIT_S))]
        case "date":
            moment = datetime.fromtimestamp(now_s + _WAIT_S, UTC)
            return [("retry-after", format_datetime(moment, usegmt=True))]
        case "ms":
            return [("retry-after-ms", str(_WAIT_S * 1000))]
        case "reset":
            return [("x-ratelimit-reset", str(int((now_s + _WAIT_S) * 1000)))]
        case "absurd":
            return [("retry-after", "31536000")]
        case "zero":
            return [("retry-after", "0")]
        case "negative":
            return [("retry-after", "-7")]
        case "garbage":
            return [("retry-after", "when the moon is full")]
    return []
