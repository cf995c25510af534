"""Finding a provider's limit of requests from nothing but its refusals.

Pure. The limit in force is a function of the last refusal and the time since then, so nobody
writes while it grows. With R the rate that the provider took before it refused, t seconds since
the end of that cool-down, and a plateau of P seconds:

    limit(t) = R · (1 + 0.02 · ((t − P) / P)³), at most 2 R

It starts at 98 % of R, stays near R for about 2 P, then looks ever faster whether there is more:
the cubic growth of CUBIC (RFC 9438). P is 10 s after a first refusal, whose R is a rough guess, and
twice as long, up to 60 s, each time that a refusal confirms R. Before any refusal: 100 calls/s,
doubled every 0.25 s, and no limit at all from 3,200 on.
"""

from __future__ import annotations

from typing import Final

from services.kernel.contracts.base import Contract

_START_PER_MINUTE: Final = 6_000.0
_DOUBLED_EVERY_S: Final = 0.25
_UNBOUNDED_PER_MINUTE: Final = 192_000.0
_LESS: Final = 0.02
_PLATEAU_S: Final = 10.0
_LONGEST_PLATEAU_S: Final = 60.0
_CONFIRMING: Final = 0.07
"""A rate that differs by so small a share from the one that was known is the same limit."""
_MOST: Final = 2.0
"""Time alone, as over a night, must not forget a limit: beyond it, only use raises R."""
_TOO_MUCH: Final = 0.99
"""Of the limit in force, when it was used and refused: the provider's is just below."""
_IN_USE: Final = 0.75
"""A smaller share of the limit, refused all the same: the provider's is well below. What other
replicas were granted is heard of a little late, so that a limit in use looks less than full."""
_LOWEST_SHARE: Final = 0.8
"""Of the limit in force, in one step down: a window that was not full tells too little."""
_SHORT_HINT_S: Final = 2.0
_SHORT_WINDOW_S: Final = 1
_LONG_WINDOW_S: Final = 60
_CALLS_MIN: Final = 10
"""Granted in a window, so that it tells a rate."""
_IN_VAIN: Final = 2
_USED_SHARE: Final = 0.8


class Learned(Contract):
    """What is known of the limit of one route. `since` of 0: it was never asked.

    Refusals without an answer in between are a series, begun at `vain_since`; `in_vain` counts
    its cool-downs that ended in another refusal. After two, it was not our rate: what was known
    `before` (requests a minute, and its age in seconds) holds again.
    """

    since: float = 0
    per_minute: float = 0
    plateau_s: float = _PLATEAU_S
    refused_at: float = 0
    vain_since: float = 0
    in_vain: int = 0
    before: tuple[float, float] = (0, 0)

    def limit(self, now: float) -> float:
        """Requests a minute at this moment; 0: no limit is known."""
        age_s = self._age_s(now)
        if not self.per_minute:
            doublings = min(age_s / _DOUBLED_EVERY_S, 100.0)
            grown = _START_PER_MINUTE * 2.0**doublings
            return grown if grown < _UNBOUNDED_PER_MINUTE else 0.0
        growth = 1 + _LESS * ((age_s - self.plateau_s) / self.plateau_s) ** 3
        grown = self.per_minute * min(growth, _MOST)
        return grown if grown < _UNBOUNDED_PER_MINUTE else 0.0

    def is_full_grown(self, now: float) -> bool:
        """Time alone raises it no further."""
        return bool(self.per_minute) and self.limit(now) >= _MOST * self.per_minute

    def window_s(self, hint_s: float, now: float) -> int:
        """How far back to count what was granted before a refusal with this hint."""
        limit = self.limit(now)
        if hint_s > _SHORT_HINT_S:
            return _LONG_WINDOW_S
        if not limit or limit / 60 * _SHORT_WINDOW_S >= _CALLS_MIN:
            return _SHORT_WINDOW_S
        return min(_LONG_WINDOW_S, int(_CALLS_MIN * 60 / limit) + 1)

    def asked(self, now: float) -> Learned:
        """The first call of all begins."""
        return self if self.since else self.model_copy(update={"since": now})

    def answered(self, began_at: float) -> Learned:
        """A call of this age was answered; one from before the series proves nothing."""
        if not self.vain_since or began_at <= self.vain_since:
            return self
        return self.model_copy(update={"vain_since": 0.0, "in_vain": 0})

    def refused(self, began_at: float, now: float, *, until: float, per_minute: float) -> Learned:
        """A call was refused, asked for at this rate; the fleet cools down until `until`."""
        if began_at < max(self.refused_at, self.since):
            return self  # Under way already when another one was refused.
        if self.vain_since:
            return self._refused_again(now, until)
        limit, plateau_s = self.limit(now), _PLATEAU_S
        if limit and self.per_minute:
            per_minute = _lowered(limit, per_minute)
            if abs(per_minute - self.per_minute) <= _CONFIRMING * self.per_minute:
                plateau_s = min(2 * self.plateau_s, _LONGEST_PLATEAU_S)
        return Learned(
            since=until,
            per_minute=max(per_minute, 1.0),
            plateau_s=plateau_s,
            refused_at=now,
            vain_since=now,
            before=(self.per_minute, self._age_s(now)),
        )

    def _refused_again(self, now: float, until: float) -> Learned:
        again = {"in_vain": self.in_vain + 1, "refused_at": now, "since": until}
        if self.in_vain + 1 >= _IN_VAIN:
            per_minute, age_s = self.before
            again |= {"per_minute": per_minute, "since": until - age_s}
        return self.model_copy(update=again)

    def used(self, now: float, granted_per_minute: float) -> Learned:
        """The limit was used up to its last growth without a refusal: look further."""
        limit = self.limit(now)
        if not self.is_full_grown(now) or granted_per_minute < _USED_SHARE * limit:
            return self
        return Learned(since=now - _PLATEAU_S, per_minute=limit, refused_at=self.refused_at)

    def _age_s(self, now: float) -> float:
        return max(0.0, now - self.since) if self.since else 0.0


def _lowered(limit: float, per_minute: float) -> float:
    """What to take for the provider's limit, when calls at `per_minute` were refused."""
    if per_minute >= _IN_USE * limit:
        return _TOO_MUCH * limit
    return max(per_minute, _LOWEST_SHARE * limit)
