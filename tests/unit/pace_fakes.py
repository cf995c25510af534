"""A bucket in memory, and paces on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nats.js.errors import KeyNotFoundError, KeyWrongLastSequenceError
from nats.js.kv import KeyValue

from services.kernel.fleet.clock import FleetClock
from services.kernel.fleet.pace.limits import NO_LIMITS, Limits
from services.kernel.fleet.pace.pace import Pace
from services.kernel.fleet.pace.record import PaceRecord
from services.kernel.record import Record


class MemoryBucket:
    """What `kernel.record` needs of a KV bucket. While `is_away`, every call fails."""

    def __init__(self) -> None:
        self.entries: dict[str, KeyValue.Entry] = {}
        self.is_away = False
        self.writes = 0

    async def get(self, key: str, **_options: Any) -> KeyValue.Entry:
        self._check()
        if key not in self.entries:
            raise KeyNotFoundError
        return self.entries[key]

    async def create(self, key: str, value: bytes, **_options: Any) -> int:
        return await self.update(key, value, last=0)

    async def update(self, key: str, value: bytes, last: int | None, **_options: Any) -> int:
        self._check()
        known = self.entries.get(key)
        if (known.revision or 0 if known else 0) != (last or 0):
            raise KeyWrongLastSequenceError
        self.writes += 1
        revision = (last or 0) + 1
        self.entries[key] = KeyValue.Entry(
            bucket="FLEET",
            key=key,
            value=value,
            revision=revision,
            delta=None,
            created=None,
            operation=None,
        )
        return revision

    def _check(self) -> None:
        if self.is_away:
            raise OSError("the bucket is away")


def pace_on(
    bucket: MemoryBucket,
    clock: Callable[[], float],
    *,
    limits: Callable[[], Limits] = lambda: NO_LIMITS,
    replica: str = "a",
    concurrency: int = 16,
    chance: Callable[[], float] = lambda: 0.0,
) -> Pace:
    """One replica's turns, on a record that others may share. `clock` gives seconds."""
    record = Record[PaceRecord](bucket, "pace.stage1", PaceRecord(), writes_max=50)  # type: ignore[arg-type]
    return Pace(
        record,
        limits,
        FleetClock(monotonic=clock),
        replica=replica,
        concurrency=concurrency,
        chance=chance,
    )


def free_pace(clock: Callable[[], float], *, concurrency: int = 16) -> Pace:
    """Turns without limits: nothing is written anywhere."""
    return pace_on(MemoryBucket(), clock, concurrency=concurrency)
