"""How one route is doing, as one replica sees it and tells the others.

What a replica learns holds for itself at once, and for the others when it is written, some
milliseconds later. Calls never wait for such a write, but where a term's fate hangs on it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from functools import reduce
from typing import Final

import structlog

from services.kernel.errors import Outage
from services.kernel.fleet.health.breaker import BreakerRules
from services.kernel.fleet.health.circuit import Circuit, State
from services.kernel.fleet.health.record import HealthRecord
from services.kernel.record import Record

LONGEST_COOL_DOWN_S: Final = 45.0
"""Whatever a provider says: it is asked again after this, so that the fleet is back at work
within a minute of the end of a storm that left an absurd hint."""

_SUSPICIOUS: Final = 3
_SUSPECT_APART_S: Final = 0.02
_SUSPICIOUS_APART_S: Final = 0.5
"""After one failure, and after three, each replica begins its calls so far apart: enough of them to
open the breaker, and not all that it has in hand."""
_PENDING_MAX: Final = 1_000
_WRITE_AGAIN_S: Final = 1.0
_USE_S: Final = 10
_REPORT_EVERY_S: Final = 1.0
"""Of answers that only count for the share of failures."""

Change = Callable[[HealthRecord], HealthRecord]


class Health:
    """One route for one stage. `now` is the clock of the fleet; `jitter` gives numbers of 0–1."""

    def __init__(
        self,
        record: Record[HealthRecord],
        now: Callable[[], float],
        stage: str,
        rules: BreakerRules,
        *,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._record = record
        self._now = now
        self._stage = stage
        self._rules = rules
        self._jitter = jitter
        self._pending: list[Change] = []
        self._wanted = asyncio.Event()
        self._writing = asyncio.Lock()
        self._unreported = 0
        self._reported_at = 0.0
        self._claimed_at = 0.0

    @property
    def view(self) -> HealthRecord:
        """The record with what is not written yet."""
        return _applied(self._record.value, self._pending)

    def state(self) -> State:
        return self.view.state(self._stage, self._now())

    def opens_at(self) -> float:
        """When a call may be tried; not after now: at once, maybe as a probe."""
        view = self.view
        opens_at = view.opens_at(self._stage, self._now())
        if not view.breaker.suspect:
            return opens_at
        is_suspicious = view.breaker.suspect >= _SUSPICIOUS
        apart_s = _SUSPICIOUS_APART_S if is_suspicious else _SUSPECT_APART_S
        return max(opens_at, self._claimed_at + apart_s)

    def admits(self, probe: str) -> bool:
        """Whether a call may be made now, by the holder of `probe` where one is needed."""
        return self.view.admits(self._stage, self._now(), probe)

    def limit(self) -> float:
        """The learned limit, in requests a minute; 0: none is known."""
        return self.view.learned.limit(self._now())

    def shut(self) -> Circuit | None:
        """The open circuit that lasts longest, if there is one. A cool-down is none."""
        now = self._now()
        open_ = [c for c in self.view.circuits(self._stage) if c.state(now) == "open"]
        return max(open_, key=lambda circuit: circuit.open_until, default=None)

    async def claim(self, probe: str, *, lasting_s: float) -> bool:
        """Whether the holder of `probe` may call now; of a half-open route only one may.

        Raises Outage when nobody can tell.
        """
        if self.state() == "half-open" and not self.admits(probe):
            now, stage = self._now(), self._stage
            await self._write(lambda record: record.probed(stage, now, probe, now + lasting_s))
        is_admitted = self.admits(probe)
        if is_admitted:
            self._claimed_at = self._now()
        return is_admitted

    def release_probe(self, probe: str) -> None:
        """The probe was not made, or told nothing."""
        self._report(lambda record: record.released(self._stage, probe))

    def asked(self, granted: Callable[[int], int]) -> None:
        """A call under the learned limit begins; `granted` tells how many did in some seconds."""
        now, learned = self._now(), self.view.learned
        if not learned.since or learned.is_full_grown(now):
            per_minute = 60 * granted(_USE_S) / _USE_S
            self._report(lambda record: record.asked(now, per_minute))

    def answered(self, began_at: float) -> None:
        """A call was answered, whatever is thought of the answer."""
        now, view = self._now(), self.view
        is_counting = view.breaker.is_counting(now, self._rules)
        self._unreported = self._unreported + 1 if is_counting else 1
        is_due = is_counting and now - self._reported_at >= _REPORT_EVERY_S
        if is_due or view.answered(self._stage, 0, began_at, now, self._rules) != view:
            calls, self._unreported, self._reported_at = self._unreported, 0, now
            self._report(
                lambda record: record.answered(self._stage, calls, began_at, now, self._rules)
            )

    def failed(self, began_at: float, reason: str) -> bool:
        """A call failed on the way, or the provider was down. True when that opens the breaker."""
        now, jitter = self._now(), self._jitter()
        before = self.view.breaker.circuit.changed_at
        self._report(lambda record: record.failed(began_at, now, reason, jitter, self._rules))
        return self.view.breaker.circuit.changed_at != before

    def blocked(self, began_at: float, wait_s: float, reason: str) -> bool:
        """The provider refuses everybody until somebody acts. True when that is news."""
        now, jitter = self._now(), self._jitter()
        before = self.view.breaker.circuit.changed_at
        self._report(lambda record: record.blocked(began_at, now, wait_s, reason, jitter))
        return self.view.breaker.circuit.changed_at != before

    def cool_down(self, wait_s: float, reason: str) -> bool:
        """Nobody asks for `wait_s`, at most 45 seconds. True when nobody was told to wait yet."""
        now = self._now()
        until = now + min(wait_s, LONGEST_COOL_DOWN_S)
        is_first = now >= self.view.closed_until
        self._report(lambda record: record.cooled(now, until, reason))
        return is_first

    def limited(self, began_at: float, wait_s: float, granted: Callable[[int], int]) -> None:
        """A call was refused under the learned limit; what follows for it. Told after the
        cool-down; `granted` counts the fleet's calls in so many whole seconds and the begun one."""
        now, learned = self._now(), self.view.learned
        until = max(now, self.view.closed_until)
        window_s = learned.window_s(wait_s, now)
        # Of what has just begun there are no earlier seconds, so that nothing is left to divide by.
        covered_s = window_s + (now % 1 if learned.per_minute else 0.0)
        per_minute = 60 * granted(window_s + 1) / covered_s
        self._report(lambda record: record.limited(began_at, now, until, per_minute))

    async def refused(self, question: str, began_at: float, reason: str) -> Circuit | None:
        """The provider calls the question wrong; the open circuit when that is not its fault.

        Raises Outage when nobody can tell.
        """
        now, jitter, stage = self._now(), self._jitter(), self._stage
        await self._write(
            lambda record: record.refused(stage, question, began_at, now, reason, jitter)
        )
        circuit = self.view.refusals_of(stage).circuit
        return circuit if circuit.open_until else None

    async def keep(self) -> None:
        """Writes what was reported, for ever."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            try:
                await self._write()
            except Outage as error:
                structlog.get_logger().info("health.unwritten", error=str(error))
                await asyncio.sleep(_WRITE_AGAIN_S)
                self._wanted.set()

    def _report(self, change: Change) -> None:
        """Takes a change into view and has it written, unless it changes nothing."""
        view = self.view
        if len(self._pending) < _PENDING_MAX and change(view) != view:
            self._pending.append(change)
            self._wanted.set()

    async def _write(self, *changes: Change) -> None:
        """Writes what is pending, and then these. Raises Outage."""
        async with self._writing:
            pending = [*self._pending]
            await self._record.change(lambda record: _applied(record, [*pending, *changes]))
            del self._pending[: len(pending)]


def _applied(record: HealthRecord, changes: list[Change]) -> HealthRecord:
    return reduce(lambda changed, change: change(changed), changes, record)
