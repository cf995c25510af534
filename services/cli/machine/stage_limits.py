"""The limits of the stages as an operator sees them: what holds, whence, and what is used."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from nats.js import JetStreamContext
from pydantic import ValidationError

from services.kernel import topology
from services.kernel.errors import SettingsError
from services.kernel.fleet.clock import FleetClock
from services.kernel.fleet.pace.limits import (
    StageLimits,
    limits_in_force,
    limits_key,
    pace_key,
)
from services.kernel.fleet.pace.record import ALIVE_S, PaceRecord, PaceReplica, sum_of
from services.kernel.record import Record

STAGES: Final[tuple[topology.ServiceName, ...]] = ("stage1", "stage2")
KINDS: Final = {
    "requests_per_minute": "requests a minute",
    "tokens_per_minute": "tokens a minute",
    "calls_in_flight": "calls in flight",
}
_LOOK_S: Final = 0.1
_HEARD_S: Final = ALIVE_S + 1
"""By then a replica that has not heard of a limit counts as gone."""


@dataclass(frozen=True)
class StageView:
    """One stage. `used` by kind: in the last 60 s, and slots held at this moment."""

    stage: str
    operator: StageLimits
    replicas: Mapping[str, PaceReplica]
    used: Mapping[str, int]

    @property
    def agree(self) -> bool:
        """All replicas go by the same limits, and by the operator's."""
        known = {replica.limits for replica in self.replicas.values()}
        return len(known) < 2 and all(
            replica.limits == limits_in_force(replica.settings, self.operator)
            for replica in self.replicas.values()
        )

    def in_force(self, kind: str) -> float | None:
        """The lowest that a replica goes by; 0: no limit. None while that can't be known."""
        known: list[float] = [getattr(replica.limits, kind) for replica in self.replicas.values()]
        if known:
            return min(known, key=lambda limit: limit or float("inf"))
        value: float | None = getattr(self.operator, kind)
        return value

    def source(self, kind: str) -> Literal["operator", "setting"]:
        return "setting" if getattr(self.operator, kind) is None else "operator"

    def as_json(self) -> dict[str, Any]:
        limits = {
            kind: {
                "in_force": self.in_force(kind),
                "from": self.source(kind),
                "used": self.used[kind],
            }
            for kind in KINDS
        }
        return {
            "stage": self.stage,
            "replicas": len(self.replicas),
            "agree": self.agree,
            "limits": limits,
        }


def stage_named(name: str) -> str:
    """Raises SettingsError for what has no limits."""
    if name not in STAGES:
        raise SettingsError(f"{name!r} has no limits; the stages are {', '.join(STAGES)}")
    return name


def checked_limits(changes: Mapping[str, float | None]) -> StageLimits:
    """The limits that an operator names. Raises SettingsError for a value out of bounds."""
    try:
        return StageLimits(**changes)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        raise SettingsError(
            f"{KINDS[str(fault['loc'][0])]}: {fault['msg'].lower()}, not {fault['input']}"
        ) from None


async def set_limits(js: JetStreamContext, stage: str, changes: StageLimits) -> None:
    """The limits that are named hold from now on; the others are left as they are."""
    named = changes.model_dump(exclude_none=True)
    await (await _operator(js, stage)).change(lambda limits: limits.model_copy(update=named))


async def unset_limits(js: JetStreamContext, stage: str) -> None:
    """The settings of the stage hold again."""
    await (await _operator(js, stage)).change(lambda _limits: StageLimits())


async def view_once_heard(js: JetStreamContext, stage: str) -> StageView:
    """The stage as soon as all its replicas go by the operator's limits, or it seems they don't."""
    view = await stage_view(js, stage)
    for _ in range(round(_HEARD_S / _LOOK_S)):
        if view.agree:
            break
        await asyncio.sleep(_LOOK_S)
        view = await stage_view(js, stage)
    return view


async def stage_view(js: JetStreamContext, stage: str) -> StageView:
    clock = FleetClock()
    await clock.set(js)
    now = clock.now()
    bucket = await js.key_value(topology.FLEET.name)
    pace = await Record(bucket, pace_key(stage), PaceRecord()).load()
    operator = await Record(bucket, limits_key(stage), StageLimits()).load()
    replicas = pace.alive(now)
    return StageView(
        stage,
        operator,
        replicas,
        {
            "requests_per_minute": sum_of(pace.granted, now, 60),
            "tokens_per_minute": sum_of(pace.tokens, now, 60),
            "calls_in_flight": sum(replica.slots for replica in replicas.values()),
        },
    )


async def _operator(js: JetStreamContext, stage: str) -> Record[StageLimits]:
    return Record(await js.key_value(topology.FLEET.name), limits_key(stage), StageLimits())
