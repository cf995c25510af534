"""What a submission came to, for programs and for people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from services.cli.common import out
from services.cli.printable import printable
from services.cli.submitting.affording import Bounded
from services.cli.submitting.batch_status import BatchStatus
from services.cli.submitting.publishing import Publication
from services.cli.submitting.submission import Problem, Submission, problem_of
from services.cli.submitting.waiting import DeadTerms

_SHOWN_PROBLEMS: Final = 20


@dataclass(frozen=True)
class Outcome:
    """What a submission came to; `status` and `dead` with --wait, `bounded` with --max-cost."""

    batch: str
    read: Submission
    publication: Publication
    status: BatchStatus | None = None
    dead: DeadTerms | None = None
    bounded: Bounded | None = None

    @property
    def not_taken(self) -> list[Problem]:
        """What the server refused."""
        return [
            problem_of(payload, reason, published=False)
            for payload, reason in self.publication.refused
        ]

    @property
    def is_whole(self) -> bool:
        """All rows that could be sent are published and, if waited for, have ended uncancelled."""
        is_sent = self.publication.published == len(self.read.payloads)
        if self.status is None:
            return is_sent
        return is_sent and self.status.is_over and not self.status.is_cancelled

    def as_json(self) -> dict[str, Any]:
        problems = [*self.read.unsendable, *self.read.refusals, *self.not_taken]
        result: dict[str, Any] = {
            "batch": self.batch,
            "published": self.publication.published,
            "refused_locally": len(self.read.unsendable),
            "expected_refusals": len(self.read.refusals),
            "refused_by_server": len(self.publication.refused),
            "broken_off": self.publication.broken_off,
            "expected": self.publication.expected,
            "problems": [problem.as_json() for problem in problems],
        }
        if self.status and self.dead:
            result |= {"status": self.status.as_json(), "dead": self.dead.as_json()}
        if self.bounded:
            result |= {"budget": self.bounded.as_json()}
        return result


def show_outcome(outcome: Outcome) -> None:
    """The outcome for people."""
    read, publication = outcome.read, outcome.publication
    out.print(
        f"Published {publication.published:,} of {len(read.payloads):,} terms to batch "
        f"{outcome.batch}.",
        markup=False,
    )
    if outcome.bounded:
        out.print(outcome.bounded.line(outcome.batch), markup=False)
    show_problems("held nothing to publish", read.unsendable)
    show_problems("will be refused", read.refusals)
    show_problems("not taken by the server", outcome.not_taken)
    if publication.broken_off:
        out.print(
            f"Publishing ended early: {publication.broken_off}. Submit the same again with "
            f"--batch {outcome.batch}: a term that arrived already is not made twice.",
            markup=False,
        )
    if outcome.status and outcome.dead:
        show_end(outcome.status, outcome.dead, deck=outcome.batch)
    elif publication.published:
        out.print(f"See how far it is: cardflow status {outcome.batch}", markup=False)


def show_problems(what: str, problems: list[Problem]) -> None:
    if not problems:
        return
    out.print(f"{len(problems):,} {'term' if len(problems) == 1 else 'terms'} {what}:")
    several = len({problem.source for problem in problems}) > 1
    for problem in problems[:_SHOWN_PROBLEMS]:
        place = f"{problem.source} line" if several else "line"
        input_, reason = printable(problem.input.strip(), 40), printable(problem.reason, 300)
        out.print(f"  {place} {problem.line}: {input_}: {reason}", markup=False)
    if len(problems) > _SHOWN_PROBLEMS:
        out.print(f"  … and {len(problems) - _SHOWN_PROBLEMS:,} more; --json lists all")


def ending_of(status: BatchStatus) -> str:
    """How the terms have ended, and what that cost."""
    cancelled = f", {status.cancelled:,} cancelled" if status.cancelled else ""
    return (
        f"{status.finished:,} terms finished, {status.dead:,} dead{cancelled}; "
        f"{status.calls:,} model calls, {status.cached:,} answers from the cache, "
        f"${status.cost_usd:.6f}."
    )


def show_end(status: BatchStatus, dead: DeadTerms, *, deck: str) -> None:
    """What was waited for; `deck` is the batch whose deck holds the cards."""
    if not status.is_over:
        out.print(
            f"The time is up with {status.in_flight:,} terms in flight; they go on. "
            f"See how far: cardflow status {status.batch}",
            markup=False,
        )
    if status.is_cancelled:
        out.print(
            f"Batch {status.batch} was cancelled: nothing more is spent on it. Taken up again it "
            f"goes on: cardflow cancel {status.batch} --undo",
            markup=False,
        )
    out.print(ending_of(status))
    for (service, reason), count in dead.by_reason.most_common():
        out.print(f"  {count:,} dead in {service}: {reason}", markup=False)
    for letter in dead.examples:
        term, message = printable(letter.term or letter.letter_id, 40), printable(letter.message)
        out.print(f"    {term}: {message}", markup=False)
    if status.is_over and status.finished:
        out.print(
            f"Write the deck: cardflow export --batch {deck} -o {deck}.apkg",
            markup=False,
        )
