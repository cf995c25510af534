"""The pace of one stage, opened: its record, its limits in force, and what runs behind them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import structlog

from services.kernel.fleet.background import background
from services.kernel.fleet.clock import FleetClock
from services.kernel.fleet.pace.limits import (
    Limits,
    StageLimits,
    limits_in_force,
    limits_key,
    pace_key,
)
from services.kernel.fleet.pace.pace import Pace
from services.kernel.fleet.pace.record import PaceRecord
from services.kernel.fleet.records import Fleet
from services.kernel.metrics import Metrics

_NO_LIMITS: Final = StageLimits()
_LEAVE_S: Final = 3.0
"""A replica that ends gives its slots back; the record answers within a second or is away."""


class LimitsInForce:
    """The limits of a stage: what an operator says, and what the settings say otherwise."""

    def __init__(self, settings: Limits) -> None:
        self.settings = settings
        self.now = settings

    def __call__(self) -> Limits:
        return self.now

    def set(self, operator: StageLimits) -> bool:
        """True when other limits are in force by this."""
        before, self.now = self.now, limits_in_force(self.settings, operator)
        if before == self.now:
            return False
        structlog.get_logger().info("limits.changed", **self.now.model_dump())
        return True


@asynccontextmanager
async def open_pace(
    fleet: Fleet,
    clock: FleetClock,
    stage: str,
    settings: Limits,
    *,
    replica: str,
    concurrency: int,
    metrics: Metrics,
) -> AsyncIterator[Pace]:
    """The turns of a stage. `fleet` must be followed. Raises Outage when it can't be read."""
    limits = LimitsInForce(settings)
    pace: Pace | None = None

    def on_limits() -> None:
        if limits.set(operator.value) and pace is not None:
            pace.limits_changed()

    def on_record() -> None:
        if pace is not None:
            pace.look_again()

    operator = await fleet.followed(limits_key(stage), _NO_LIMITS, on_limits)
    on_limits()
    record = await fleet.followed(pace_key(stage), PaceRecord(), on_record)
    pace = Pace(
        record,
        limits,
        clock,
        replica=replica,
        concurrency=concurrency,
        settings=settings,
        metrics=metrics,
    )
    async with background(pace.keep(), patience_s=_LEAVE_S):
        yield pace
