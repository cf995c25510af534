"""A requests-a-minute limit over a sliding window: never more than the limit in any 60 seconds.

Each model has a window of its own, as with real providers.
"""

from __future__ import annotations

from collections import deque
from dataclasses import asdict, dataclass
from typing import Any, Final

WINDOW_S: Final = 60.0
_MODELS_MAX: Final = 1_000
"""Any name is a model; those beyond so many share one window."""


@dataclass
class Seen:
    """The calls let in so far: how many, from when to when, and at most in any minute and second.

    Times are epoch seconds.
    """

    admitted: int = 0
    first_at: float | None = None
    last_at: float | None = None
    busiest_minute: int = 0
    busiest_second: int = 0


class RateWindow:
    """The times of the calls admitted in the last 60 s, by a clock of the caller's choice."""

    def __init__(self) -> None:
        self._minute: deque[float] = deque()
        self._second: deque[float] = deque()
        self.seen = Seen()

    def admit(self, limit: int, now_s: float) -> float:
        """0 when the call is admitted, else the seconds until one more would be.

        A limit of 0 admits everything; such calls count once a limit is set.
        """
        _forget(self._minute, now_s - WINDOW_S)
        if limit and len(self._minute) >= limit:
            return self._minute[len(self._minute) - limit] + WINDOW_S - now_s
        _forget(self._second, now_s - 1)
        self._minute.append(now_s)
        self._second.append(now_s)
        self._note(now_s)
        return 0.0

    def _note(self, now_s: float) -> None:
        seen = self.seen
        seen.admitted += 1
        seen.first_at = now_s if seen.first_at is None else seen.first_at
        seen.last_at = now_s
        seen.busiest_minute = max(seen.busiest_minute, len(self._minute))
        seen.busiest_second = max(seen.busiest_second, len(self._second))


class RateWindows:
    """One window a model."""

    def __init__(self) -> None:
        self._windows: dict[str, RateWindow] = {}

    def of(self, model: str) -> RateWindow:
        if model not in self._windows and len(self._windows) >= _MODELS_MAX:
            model = "others"
        return self._windows.setdefault(model, RateWindow())

    def seen(self) -> dict[str, Any]:
        """By model, for JSON."""
        return {model: asdict(window.seen) for model, window in self._windows.items()}


def _forget(times: deque[float], until_s: float) -> None:
    while times and times[0] <= until_s:
        times.popleft()
