"""A limit of requests over a sliding window: never more than the limit in any 60 s, or any 1 s."""

from __future__ import annotations

from collections import deque
from typing import Final

WINDOW_S: Final = 60.0


class RateWindow:
    """The times of the calls admitted in the last `window_s`, by a clock of the caller's choice."""

    def __init__(self, window_s: float = WINDOW_S) -> None:
        self._window_s = window_s
        self._admitted: deque[float] = deque()

    def wait_s(self, limit: int, now_s: float) -> float:
        """0 when a call would be admitted, else the seconds until then. A limit of 0 is none."""
        while self._admitted and self._admitted[0] <= now_s - self._window_s:
            self._admitted.popleft()
        if limit and len(self._admitted) >= limit:
            return self._admitted[len(self._admitted) - limit] + self._window_s - now_s
        return 0.0

    def admit(self, now_s: float) -> None:
        """Counts a call, also while there is no limit: it counts once there is one."""
        self._admitted.append(now_s)

    def left(self, limit: int) -> int:
        return max(0, limit - len(self._admitted))
