"""How one route is doing, and what each event does to that. Pure.

A route is one model at one provider. Every event of a call names when the call began: what a call
tells that began before the last change is about another time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from services.kernel.contracts.base import Contract
from services.kernel.fleet.health.breaker import Breaker, BreakerRules
from services.kernel.fleet.health.circuit import Circuit, State
from services.kernel.fleet.health.learning import Learned
from services.kernel.fleet.health.refusals import Refusals

_WORTH_WRITING_S: Final = 0.1
"""A cool-down that ends so little later is the same one."""


class HealthRecord(Contract):
    """What stands under `health.<route>`. `refusals` are by stage; `cooled_at`, `closed_until` and
    `cause` are those of the last cool-down."""

    model: str = ""
    provider: str = ""
    cooled_at: float = 0
    closed_until: float = 0
    cause: str = ""
    breaker: Breaker = Breaker()
    refusals: Mapping[str, Refusals] = {}
    learned: Learned = Learned()

    def refusals_of(self, stage: str) -> Refusals:
        return self.refusals.get(stage, Refusals())

    def circuits(self, stage: str) -> tuple[Circuit, Circuit]:
        """Those that a call of this stage has to pass."""
        return self.breaker.circuit, self.refusals_of(stage).circuit

    def state(self, stage: str, now: float) -> State:
        """That of the worse circuit."""
        states = {circuit.state(now) for circuit in self.circuits(stage)}
        return "open" if "open" in states else "half-open" if "half-open" in states else "closed"

    def opens_at(self, stage: str, now: float) -> float:
        """When a call may be tried; not after `now`: at once, maybe as a probe."""
        circuits = self.circuits(stage)
        probed = [c.probe_until for c in circuits if c.probe and c.state(now) == "half-open"]
        return max([self.closed_until, *(c.open_until for c in circuits), *probed])

    def admits(self, stage: str, now: float, probe: str) -> bool:
        """Whether a call may be made now, by the holder of `probe` where one is needed."""
        return now >= self.closed_until and all(
            circuit.admits(now, probe) for circuit in self.circuits(stage)
        )

    def probed(self, stage: str, now: float, probe: str, until: float) -> HealthRecord:
        """All half-open circuits given to one probe, or none of them."""
        circuits = [c.probed(now, probe, until=until) for c in self.circuits(stage)]
        if not all(circuit.admits(now, probe) for circuit in circuits):
            return self
        return self._with_circuits(stage, *circuits)

    def released(self, stage: str, probe: str) -> HealthRecord:
        return self._with_circuits(stage, *(c.released(probe) for c in self.circuits(stage)))

    def answered(
        self, stage: str, calls: int, began_at: float, now: float, rules: BreakerRules
    ) -> HealthRecord:
        """So many calls were answered, whatever is thought of the answers."""
        return self._with(
            breaker=self.breaker.answered(calls, began_at, now, rules),
            learned=self.learned.answered(began_at),
            refusals=self._changed(stage, self.refusals_of(stage).answered(began_at, now)),
        )

    def failed(
        self, began_at: float, now: float, reason: str, jitter: float, rules: BreakerRules
    ) -> HealthRecord:
        """A call failed on the way, or the provider was down."""
        return self._with(breaker=self.breaker.failure(began_at, now, reason, jitter, rules))

    def blocked(
        self, began_at: float, now: float, wait_s: float, reason: str, jitter: float
    ) -> HealthRecord:
        """The provider refuses everybody until somebody acts."""
        if self.breaker.circuit.is_unheard_of(began_at):
            return self
        breaker = self.breaker.shut(now, wait_s, wait_s, reason, jitter)
        return self._with(breaker=breaker)

    def refused(
        self, stage: str, question: str, began_at: float, now: float, reason: str, jitter: float
    ) -> HealthRecord:
        """The provider calls a question wrong."""
        refusals = self.refusals_of(stage).refused(question, began_at, now, reason, jitter)
        return self._with(refusals=self._changed(stage, refusals))

    def cooled(self, now: float, until: float, reason: str) -> HealthRecord:
        """Nobody asks before `until`."""
        if until < self.closed_until + _WORTH_WRITING_S:
            return self
        return self._with(cooled_at=now, closed_until=until, cause=reason)

    def limited(self, began_at: float, now: float, until: float, per_minute: float) -> HealthRecord:
        """A call was refused under the learned limit, asked for at this rate."""
        learned = self.learned.refused(began_at, now, until=until, per_minute=per_minute)
        return self._with(learned=learned)

    def asked(self, now: float, granted_per_minute: float) -> HealthRecord:
        """A call under the learned limit begins, at this rate."""
        return self._with(learned=self.learned.asked(now).used(now, granted_per_minute))

    def _with_circuits(self, stage: str, breaking: Circuit, refusing: Circuit) -> HealthRecord:
        refusals = self.refusals_of(stage).model_copy(update={"circuit": refusing})
        breaker = self.breaker.model_copy(update={"circuit": breaking})
        return self._with(breaker=breaker, refusals=self._changed(stage, refusals))

    def _changed(self, stage: str, refusals: Refusals) -> Mapping[str, Refusals]:
        if refusals == self.refusals_of(stage):
            return self.refusals
        return {**self.refusals, stage: refusals}

    def _with(self, **parts: Any) -> HealthRecord:
        return self.model_copy(update=parts)
