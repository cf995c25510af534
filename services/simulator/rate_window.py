"""Limits of requests over sliding windows: never more in any 60 seconds, or in any second.

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


@dataclass(frozen=True)
class Room:
    """What a limit leaves: so many calls now, or one in `wait_s`. `kind`: `rpm` or `rps`."""

    kind: str
    limit: int
    left: int
    wait_s: float


class RateWindow:
    """The times of the calls admitted lately, by a clock of the caller's choice."""

    def __init__(self) -> None:
        self._minute: deque[float] = deque()
        self._second: deque[float] = deque()
        self.seen = Seen()

    def room(self, rpm: int, rps: int, now_s: float) -> Room | None:
        """That of the tighter limit; None without any. A limit of 0 is none."""
        _forget(self._minute, now_s - WINDOW_S)
        _forget(self._second, now_s - 1)
        rooms = [
            Room(kind, limit, max(0, limit - len(times)), _wait_s(times, limit, window_s, now_s))
            for kind, limit, times, window_s in (
                ("rpm", rpm, self._minute, WINDOW_S),
                ("rps", rps, self._second, 1.0),
            )
            if limit
        ]
        return max(rooms, key=lambda room: (room.wait_s, -room.left), default=None)

    def admit(self, now_s: float) -> None:
        """Counts a call, also one without any limit: it counts once there is one."""
        self._minute.append(now_s)
        self._second.append(now_s)
        self._note(now_s)

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


def _wait_s(times: deque[float], limit: int, window_s: float, now_s: float) -> float:
    return times[len(times) - limit] + window_s - now_s if len(times) >= limit else 0.0


def _forget(times: deque[float], until_s: float) -> None:
    while times and times[0] <= until_s:
        times.popleft()
