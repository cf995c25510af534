"""What making a revision came to, for programs and for people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from services.cli.common import out
from services.cli.printable import printable
from services.cli.revisions.planning import Plan
from services.cli.submitting.batch_status import BatchStatus
from services.cli.submitting.publishing import Publication
from services.cli.submitting.submission import Problem, Submission
from services.cli.submitting.submission_report import Outcome, show_end
from services.cli.submitting.waiting import DeadTerms

_SHOWN_PROBLEMS: Final = 20


@dataclass(frozen=True)
class Made:
    """A plan and what became of it; the last two only with --wait."""

    plan: Plan
    publication: Publication
    status: BatchStatus | None = None
    dead: DeadTerms | None = None

    @property
    def outcome(self) -> Outcome:
        read = Submission(payloads=self.plan.payloads, unsendable=self.plan.problems)
        return Outcome(self.plan.batch, read, self.publication, self.status, self.dead)

    @property
    def is_whole(self) -> bool:
        """Every term of the checkpoint is published and, if waited for, has ended."""
        return self.outcome.is_whole and not self.plan.problems

    def as_json(self) -> dict[str, Any]:
        revision = self.plan.revision
        of = {
            "revises": revision.revises,
            "revision": revision.number,
            "stage": revision.stage,
            "model": revision.model,
        }
        problems = [*self.plan.problems, *self.outcome.not_taken]
        return {**of, **self.outcome.as_json(), "problems": list(map(_problem_as_json, problems))}


def _problem_as_json(problem: Problem) -> dict[str, Any]:
    return {
        "batch": problem.source,
        "position": problem.line,
        "term": problem.input,
        "reason": problem.reason,
    }


def show_made(made: Made) -> None:
    """The outcome for people."""
    plan, publication = made.plan, made.publication
    root, number = plan.revision.revises, plan.revision.number
    out.print(
        f"Published {publication.published:,} of {len(plan.payloads):,} terms to batch "
        f"{plan.batch}, revision {number} of {root} from stage {plan.revision.stage}.",
        markup=False,
    )
    show_problems("can't be submitted again", plan.problems)
    show_problems("not taken by the server", made.outcome.not_taken)
    if publication.broken_off:
        out.print(f"Publishing ended early: {publication.broken_off}.", markup=False)
    if publication.published < len(plan.payloads):
        out.print(
            f"Publish the rest: cardflow regenerate --batch {root} --revision {number}",
            markup=False,
        )
    if made.status and made.dead:
        show_end(made.status, made.dead, deck=root)
    elif publication.published:
        out.print(f"See how far it is: cardflow status {plan.batch}", markup=False)


def show_problems(what: str, problems: list[Problem]) -> None:
    if not problems:
        return
    out.print(f"{len(problems):,} {'term' if len(problems) == 1 else 'terms'} {what}:")
    for problem in problems[:_SHOWN_PROBLEMS]:
        term, reason = printable(problem.input, 40), printable(problem.reason, 300)
        out.print(f"  {problem.source} {problem.line}: {term}: {reason}", markup=False)
    if len(problems) > _SHOWN_PROBLEMS:
        out.print(f"  … and {len(problems) - _SHOWN_PROBLEMS:,} more; --json lists all")
