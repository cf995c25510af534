"""A requests-a-minute limit over a sliding window: never more than the limit in any 60 seconds."""

from __future__ import annotations

from collections import deque
from typing import Final

WINDOW_S: Final = 60.0


class RateWindow:
    """The times of the calls admitted in the last 60 s, by a clock of the caller's choice."""

    def __init__(self) -> None:
        self._admitted: deque[float] = deque()

    def admit(self, limit: int, now_s: float) -> float:
        """0 when the call is admitted, else the seconds until one more would be.

        A limit of 0 admits everything; such calls count once a limit is set.
        """
        while self._admitted and self._admitted[0] <= now_s - WINDOW_S:
            self._admitted.popleft()
        if limit and len(self._admitted) >= limit:
            return self._admitted[len(self._admitted) - limit] + WINDOW_S - now_s
        self._admitted.append(now_s)
        return 0.0
