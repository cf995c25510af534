"""The shared record of a stage's permits and slots, and the arithmetic on it. No clock, no I/O.

Generic cell rate algorithm: the record holds the time of the next permit. Who takes a permit moves
that time on by one interval, so that permits are spaced evenly over all replicas. No window of a
minute holds more than the limit, however the calls arrive and whoever makes them, as long as a
call is sent within `LATE_S` of its permit's time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from pydantic import Field

from services.kernel.contracts.base import Contract
from services.kernel.fleet.pace.limits import NO_LIMITS, Limits
from services.kernel.fleet.pace.slots import fair_shares

WINDOW_S: Final = 60.0
REQUEST_SHARE: Final = 0.995
"""Of the limit that is used: calls that reach the provider 0.3 s late, (60 + 0.3) s × 0.995 / 60 s,
still make no minute that is over it."""
TOKEN_SHARE: Final = 0.989
"""The same for tokens, with `_TOKENS_EARLY_S`."""
LATE_S: Final = 0.25
"""A permit is good for so long after its time."""
AHEAD_S: Final = 0.5
"""Permits are taken so long before their time, so that none is missed while there is work."""
ALIVE_S: Final = 15.0
"""A replica that has written nothing for so long is gone, and its slots are free."""
_CHUNK_S: Final = 0.1
"""One change of the record takes the permits of so long, or one."""
_TOKENS_EARLY_S: Final = 0.4
"""So far calls of many and of few tokens make up for each other: else two limits that nearly bind
would leave both unused."""
_CLOCK_STEP_S: Final = 5.0
"""A record from so far in the future was written before the server's clock was set back."""


class Permit(NamedTuple):
    """The right to send one call at a time (server's seconds), and the tokens reserved for it."""

    at: float
    tokens: int


class PaceReplica(Contract):
    """One replica: slots it holds and wants, its last change, the limits it knows."""

    seen_at: float
    slots: int = 0
    wanted: int = 0
    change: int = 0
    limits: Limits = Limits()
    settings: Limits = Limits()


class PaceRecord(Contract):
    """What the replicas of a stage share. Times are the server's, in seconds.

    `permit_at` and `tokens_at`: when the next call may be sent by the limit of requests, and when
    the tokens reserved so far are used up; reckoned by `limits`. `granted` and `tokens`: turns
    given and tokens used, by second, for the last minute.
    """

    permit_at: float = 0
    tokens_at: float = 0
    limits: Limits = Limits()
    written_at: float = 0
    granted: dict[int, int] = Field(default_factory=dict)
    tokens: dict[int, int] = Field(default_factory=dict)
    replicas: dict[str, PaceReplica] = Field(default_factory=dict)

    def alive(self, now: float) -> dict[str, PaceReplica]:
        return {name: r for name, r in self.replicas.items() if now - r.seen_at < ALIVE_S}


@dataclass(frozen=True)
class Asked:
    """What one replica reports and asks for in one change of the record.

    `waiting` are the tokens of each call that wants a permit, in order. `wanted` and `in_use` are
    slots. `change` numbers the changes of this replica. `owed` are tokens used beyond those
    reserved, or below when negative; `skipped` are permits that it gives up. `granted` and
    `tokens` are turns given and tokens used by second.
    """

    replica: str
    now: float
    limits: Limits
    settings: Limits = NO_LIMITS
    waiting: tuple[int, ...] = ()
    wanted: int = 0
    in_use: int = 0
    change: int = 0
    owed: int = 0
    skipped: int = 0
    granted: Mapping[int, int] | None = None
    tokens: Mapping[int, int] | None = None


def take(record: PaceRecord, asked: Asked) -> tuple[PaceRecord, tuple[Permit, ...]]:
    """The record after a change, and the permits that the replica has by it, earliest first."""
    now = asked.now
    record = _reckoned_by(record, asked.limits, now)
    permit_at, tokens_at = record.permit_at, _after_debt(record.tokens_at, asked)
    if asked.skipped:
        permit_at = max(permit_at, now) + asked.skipped * request_interval_s(asked.limits)
    permits, permit_at, tokens_at = _permits(permit_at, tokens_at, asked)
    mine = PaceReplica(
        seen_at=now,
        slots=slots_of(record, asked),
        wanted=asked.wanted,
        change=asked.change,
        limits=asked.limits,
        settings=asked.settings,
    )
    changes = {
        "permit_at": permit_at,
        "tokens_at": tokens_at,
        "limits": asked.limits,
        "written_at": now,
        "granted": _minute(record.granted, asked.granted, now),
        "tokens": _minute(record.tokens, asked.tokens, now),
        "replicas": record.alive(now) | {asked.replica: mine},
    }
    return record.model_copy(update=changes), permits


def request_interval_s(limits: Limits) -> float:
    """Seconds between two permits; 0 without a limit."""
    per_minute = limits.requests_per_minute * REQUEST_SHARE
    return WINDOW_S / per_minute if per_minute else 0.0


def opens_at(record: PaceRecord, asked: Asked) -> float:
    """When the replica can take the next permit."""
    record = _reckoned_by(record, asked.limits, asked.now)
    tokens_at = _after_debt(record.tokens_at, asked) - _TOKENS_EARLY_S
    return max(record.permit_at, tokens_at) - AHEAD_S


def seconds_owed(asked: Asked) -> float:
    """By how much the report of its tokens moves the time of the next permit, either way."""
    return abs(asked.owed) * _token_interval_s(asked.limits)


def slots_of(record: PaceRecord, asked: Asked) -> int:
    """The slots that a replica may hold from now on: never fewer than it uses."""
    limit = asked.limits.calls_in_flight
    if not limit:
        return 0
    others = record.alive(asked.now)
    others.pop(asked.replica, None)
    wanted = {name: other.wanted for name, other in others.items()} | {asked.replica: asked.wanted}
    share = fair_shares(limit, wanted, asked.now)[asked.replica]
    room = limit - sum(other.slots for other in others.values())
    return max(asked.in_use, min(share, room))


def sum_of(counts: Mapping[int, int], now: float, last_s: int) -> int:
    """What was counted by second in the last 1..60 s."""
    return max(0, sum(count for second, count in counts.items() if now - last_s < second <= now))


def _permits(
    permit_at: float, tokens_at: float, asked: Asked
) -> tuple[tuple[Permit, ...], float, float]:
    interval_s, token_s = request_interval_s(asked.limits), _token_interval_s(asked.limits)
    permits: list[Permit] = []
    for tokens in asked.waiting if asked.limits.are_paced else ():
        at = max(asked.now, permit_at, tokens_at - _TOKENS_EARLY_S)
        if at > asked.now + AHEAD_S or (permits and at >= permits[0].at + _CHUNK_S):
            break
        permits.append(Permit(at, tokens))
        permit_at = at + interval_s
        tokens_at = max(tokens_at, at) + tokens * token_s
    return tuple(permits), permit_at, tokens_at


def _token_interval_s(limits: Limits) -> float:
    per_minute = limits.tokens_per_minute * TOKEN_SHARE
    return WINDOW_S / per_minute if per_minute else 0.0


def _after_debt(tokens_at: float, asked: Asked) -> float:
    """A debt is paid from now on; what was reserved in vain is worth nothing once it is past."""
    begin_at = max(tokens_at, asked.now) if asked.owed > 0 else tokens_at
    return begin_at + asked.owed * _token_interval_s(asked.limits)


def _reckoned_by(record: PaceRecord, limits: Limits, now: float) -> PaceRecord:
    """The same permits and tokens taken in advance, as times by other limits."""
    if record.written_at > now + _CLOCK_STEP_S:
        return record.model_copy(update={"permit_at": now, "tokens_at": now, "replicas": {}})
    before = record.limits
    if before == limits:
        return record
    permit_at = _scaled(
        record.permit_at, before.requests_per_minute, limits.requests_per_minute, now
    )
    tokens_at = _scaled(record.tokens_at, before.tokens_per_minute, limits.tokens_per_minute, now)
    return record.model_copy(update={"permit_at": permit_at, "tokens_at": tokens_at})


def _scaled(at: float, before: float, after: float, now: float) -> float:
    return now + (at - now) * before / after if before and after and at > now else at


def _minute(
    counts: Mapping[int, int], more: Mapping[int, int] | None, now: float
) -> dict[int, int]:
    added = dict(counts)
    for second, count in (more or {}).items():
        added[second] = added.get(second, 0) + count
    return {second: added[second] for second in sorted(added) if now - WINDOW_S < second <= now}
