"""Limits of requests, storms of refusals, and what the headers say of both."""

from __future__ import annotations

import math
from collections import Counter
from typing import Final

from services.simulator.rate_window import RateWindows, Room
from services.simulator.replies import Headers, Reply, reply_error, reply_rate_limited
from services.simulator.settings import SimulatorSettings
from services.simulator.storm import odd_hint

_STORM: Final = "Simulated storm: too many requests"


class Limits:
    """What was let in so far, by model. `refused` counts the 429s: `rpm`, `rps`, `storm_<hint>`."""

    def __init__(self) -> None:
        self.refused: Counter[str] = Counter()
        self.windows = RateWindows()

    def refuse(self, settings: SimulatorSettings, model: str, now_s: float) -> Reply | None:
        """The 429 of a storm or of a limit that is used up; None lets the call in, and counts."""
        if settings.storm:
            kind, headers = odd_hint(settings.seed, self.refused.total(), now_s)
            self.refused[f"storm_{kind}"] += 1
            return reply_error(429, _STORM, headers=headers)
        room = self._room(settings, model, now_s)
        if room is None or room.wait_s <= 0:
            self.windows.of(model).admit(now_s)
            return None
        self.refused[room.kind] += 1
        return reply_rate_limited(room.limit, math.ceil(room.wait_s), _reset_ms(room, now_s))

    def headers(self, settings: SimulatorSettings, model: str, now_s: float) -> Headers:
        """What an answer tells of the tighter limit, if it is told to tell."""
        room = self._room(settings, model, now_s)
        if not settings.rate_headers or room is None:
            return []
        return [
            (b"x-ratelimit-limit", b"%d" % room.limit),
            (b"x-ratelimit-remaining", b"%d" % room.left),
            (b"x-ratelimit-reset", b"%d" % _reset_ms(room, now_s)),
        ]

    def _room(self, settings: SimulatorSettings, model: str, now_s: float) -> Room | None:
        return self.windows.of(model).room(settings.rpm, settings.rps, now_s)


def _reset_ms(room: Room, now_s: float) -> int:
    return math.ceil((now_s + room.wait_s) * 1000)
