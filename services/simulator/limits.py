"""Limits of requests, storms of refusals, and what the headers say of both."""

from __future__ import annotations

import math
from collections import Counter
from typing import Final

from services.simulator.rate_window import RateWindow
from services.simulator.replies import Headers, Reply, reply_error, reply_rate_limited
from services.simulator.settings import SimulatorSettings
from services.simulator.storm import odd_hint

_STORM: Final = "Simulated storm: too many requests"


class Limits:
    """What was let in so far. `refused` counts the 429s by kind: `rpm`, `rps`, `storm_<hint>`."""

    def __init__(self) -> None:
        self.refused: Counter[str] = Counter()
        self._minute = RateWindow()
        self._second = RateWindow(1.0)

    def refuse(self, settings: SimulatorSettings, now_s: float) -> Reply | None:
        """The 429 of a storm or of a limit that is used up; None lets the call in, and counts."""
        if settings.storm:
            kind, headers = odd_hint(settings.seed, self.refused.total(), now_s)
            self.refused[f"storm_{kind}"] += 1
            return reply_error(429, _STORM, headers=headers)
        waits = {
            "rpm": self._minute.wait_s(settings.rpm, now_s),
            "rps": self._second.wait_s(settings.rps, now_s),
        }
        kind = max(waits, key=waits.__getitem__)
        if (wait_s := waits[kind]) > 0:
            self.refused[kind] += 1
            limit = settings.rpm if kind == "rpm" else settings.rps
            return reply_rate_limited(limit, math.ceil(wait_s), math.ceil((now_s + wait_s) * 1000))
        self._minute.admit(now_s)
        self._second.admit(now_s)
        return None

    def headers(self, settings: SimulatorSettings, now_s: float) -> Headers:
        """What an answer tells of the limit with the least left, if it is told to tell."""
        limits = [
            (window.left(limit), limit, window)
            for window, limit in ((self._minute, settings.rpm), (self._second, settings.rps))
            if limit
        ]
        if not settings.rate_headers or not limits:
            return []
        left, limit, window = min(limits, key=lambda each: each[0])
        reset_ms = math.ceil((now_s + window.wait_s(limit, now_s)) * 1000)
        return [
            (b"x-ratelimit-limit", b"%d" % limit),
            (b"x-ratelimit-remaining", b"%d" % left),
            (b"x-ratelimit-reset", b"%d" % reset_ms),
        ]
