"""Replicas that keep one pace, on a clock that only waiting moves."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from model.virtual_time import VirtualLoop
from pydantic import ValidationError
from unit.pace_fakes import MemoryBucket, pace_on

from services.kernel.contracts.term import Priority
from services.kernel.errors import Outage
from services.kernel.fleet.pace.limits import Limits
from services.kernel.fleet.pace.pace import Pace, PaceTurn

START_S = 1_000.0
"""When the virtual clock begins, as the server reckons."""
ROUNDING_S = 1e-6


@dataclass(frozen=True)
class Call:
    """One call that was sent, and by whom."""

    at: float
    replica: str
    priority: Priority
    tokens: int


@dataclass
class Replica:
    """One process: its pace, and the task that keeps it."""

    name: str
    pace: Pace
    keeping: asyncio.Task[None]
    callers: list[asyncio.Task[None]] = field(default_factory=list)

    def die(self) -> None:
        """At once: it gives nothing back."""
        for task in self.callers:
            task.cancel()
        self.pace._taking.leave = _nothing  # type: ignore[method-assign]
        self.keeping.cancel()


async def _nothing() -> None:
    """A dead one writes nothing."""


class PacedFleet:
    """`latency_s` is how long the bucket takes for one answer at most; `calls` is what was sent."""

    def __init__(self, limits: Limits, *, latency_s: float = 0.005, seed: int = 0) -> None:
        self.loop = VirtualLoop()
        self.limits = limits
        self.calls: list[Call] = []
        self.in_flight = 0
        self.most_in_flight = 0
        self._random = random.Random(seed)
        self.bucket = SlowBucket(lambda: self._random.uniform(0, latency_s), self._tell)
        self.replicas: dict[str, Replica] = {}
        self._reading: set[asyncio.Task[None]] = set()

    def clock(self) -> float:
        return START_S + self.loop.time()

    def start(self, name: str, *, concurrency: int = 16) -> Replica:
        pace = pace_on(
            self.bucket,
            self.clock,
            limits=lambda: self.limits,
            replica=name,
            concurrency=concurrency,
            chance=self._random.random,
        )
        # All replicas see the server's clock; the test's own is as good.
        pace._clock._offset_s = 0.0
        replica = Replica(name, pace, self.loop.create_task(pace.keep()))
        self.replicas[name] = replica
        return replica

    def call(
        self,
        replica: Replica,
        *,
        in_s: float = 0.0,
        lasting_s: float = 0.5,
        tokens: int = 100,
        used: int = 0,
        priority: Priority = "normal",
        before_sending: Callable[[PaceTurn], object] | None = None,
    ) -> None:
        """A call that wants a turn in so many seconds."""

        async def work() -> None:
            await asyncio.sleep(in_s)
            async with replica.pace.turn(tokens, priority) as turn:
                if before_sending is not None:
                    await before_sending(turn)  # type: ignore[misc]
                await turn.in_time()
                self.calls.append(Call(self.clock(), replica.name, priority, used or tokens))
                self.in_flight += 1
                self.most_in_flight = max(self.most_in_flight, self.in_flight)
                try:
                    await asyncio.sleep(lasting_s)
                finally:
                    self.in_flight -= 1
                turn.used(used)

        replica.callers.append(self.loop.create_task(work()))

    def change_limits(self, limits: Limits) -> None:
        """As an operator does; the replicas hear of it."""
        self.limits = limits
        for replica in self.replicas.values():
            self.loop.call_soon(replica.pace.limits_changed)

    def _tell(self) -> None:
        """The record was written: who follows it reads it."""
        for replica in self.replicas.values():
            if not replica.keeping.done():
                self._reading.add(task := self.loop.create_task(self._read(replica.pace)))
                task.add_done_callback(self._reading.discard)

    async def _read(self, pace: Pace) -> None:
        with suppress(Outage, ValidationError):
            await pace._taking._record.load()
            pace.look_again()

    def run_for(self, seconds: float) -> None:
        self.loop.run_for(seconds)

    def end(self) -> None:
        for replica in self.replicas.values():
            replica.die()
        self.loop.shut()

    @property
    def times(self) -> list[float]:
        return sorted(call.at for call in self.calls)


class SlowBucket(MemoryBucket):
    """Every answer takes its time, so that replicas get in each other's way."""

    def __init__(self, latency_s: Callable[[], float], on_written: Callable[[], None]) -> None:
        super().__init__()
        self._latency_s = latency_s
        self._on_written = on_written
        self.hangs = False

    async def get(self, key: str, **options: object):  # type: ignore[no-untyped-def]
        await self._travel()
        entry = await super().get(key, **options)
        await self._travel()
        return entry

    async def update(  # type: ignore[no-untyped-def]
        self, key: str, value: bytes, last: int | None, **options: object
    ):
        await self._travel()
        revision = await super().update(key, value, last, **options)
        self._on_written()
        await self._travel()
        return revision

    async def _travel(self) -> None:
        await asyncio.sleep(3_600 if self.hangs else self._latency_s())


def busiest_minute(times: Sequence[float]) -> int:
    """The most calls in any 60 s."""
    return max(
        (sum(start <= at < start + 60 - ROUNDING_S for at in times) for start in times), default=0
    )


def tokens_of_busiest_minute(calls: Sequence[Call]) -> int:
    return max(
        sum(call.tokens for call in calls if first.at <= call.at < first.at + 60 - ROUNDING_S)
        for first in calls
    )
