"""Calls that the provider calls wrong (400, 404, 413, 422): a fault of a term, or of ours?

Pure. One such call is given up. Three in a row for different questions are no coincidence: the
prompt is at fault or the model is gone. Then a stage waits, and now and then asks again.
"""

from __future__ import annotations

from typing import Final

from services.kernel.contracts.base import Contract
from services.kernel.fleet.health.circuit import Circuit

IN_A_ROW: Final = 3
_FIRST_S: Final = 30.0
_LONGEST_S: Final = 300.0
"""Somebody has to change something, so this takes its time; a call now and then finds it out."""


class Refusals(Contract):
    """One stage's on one route. `questions`: the fingerprints refused since the last answer."""

    circuit: Circuit = Circuit()
    questions: tuple[str, ...] = ()

    def refused(
        self, question: str, began_at: float, now: float, reason: str, jitter: float
    ) -> Refusals:
        """One more question was refused. Opens the circuit at the third, and at a probe."""
        if self.circuit.is_unheard_of(began_at):
            return self
        questions = self.questions
        if question not in questions and len(questions) < IN_A_ROW:
            questions = (*questions, question)
        circuit = self.circuit
        if len(questions) == IN_A_ROW:
            circuit = circuit.opened(
                now, first_s=_FIRST_S, longest_s=_LONGEST_S, reason=reason, jitter=jitter
            )
        return Refusals(circuit=circuit, questions=questions)

    def answered(self, began_at: float, now: float) -> Refusals:
        if self.circuit.is_old_news(began_at) or self == Refusals(circuit=self.circuit.closed(now)):
            return self
        return Refusals(circuit=self.circuit.closed(now))
