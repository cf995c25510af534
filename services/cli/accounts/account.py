"""The answer of an audit, and how it is shown: JSON for programs, a table for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rich.table import Table

from services.cli.accounts.accounting import BatchRecord, Problem
from services.cli.accounts.billing import Tally
from services.cli.accounts.provider_books import Comparison
from services.cli.common import out
from services.cli.printable import printable

_IDS_SHOWN: Final = 20
_FORGOTTEN: Final = (
    "the oldest submissions have passed their age, so that where a term came from is not checked"
)


@dataclass(frozen=True)
class BatchAccount:
    """One batch with its bill and what does not hold."""

    record: BatchRecord
    bill: Tally
    problems: tuple[Problem, ...]

    @property
    def cached(self) -> int:
        """Completions of finished terms that came from our cache."""
        return sum(paid.cached for both in self.record.finished.values() for paid in both)


@dataclass(frozen=True)
class Account:
    """The whole answer."""

    batches: tuple[BatchAccount, ...]
    bill: Tally
    provider: Comparison | None
    problems: tuple[Problem, ...]

    @property
    def balanced(self) -> bool:
        return not self.problems and not any(b.problems for b in self.batches)

    @property
    def complete(self) -> bool:
        return all(b.record.complete for b in self.batches)


def as_json(account: Account) -> dict[str, Any]:
    return {
        "balanced": account.balanced,
        "complete": account.complete,
        "batches": [_batch_as_json(b) for b in account.batches],
        **_bill_as_json(account.bill),
        "cached": sum(b.cached for b in account.batches),
        "provider": account.provider.as_json() if account.provider else None,
        "problems": _problems_as_json(account.problems),
    }


def _batch_as_json(batch: BatchAccount) -> dict[str, Any]:
    record = batch.record
    return {
        "batch": record.batch,
        "balanced": not batch.problems,
        "complete": record.complete,
        "submitted": len(record.submissions),
        "accepted": len(record.accepted),
        "refused": len(record.refused),
        "analyzed": len(record.analyzed),
        "finished": len(record.finished),
        "dead": len(record.all_dead),
        "cancelled": len(record.all_cancelled),
        "in_flight": len(record.in_flight),
        "in_flight_ids": sorted(record.in_flight),
        "not_stored": len(record.not_stored),
        **_bill_as_json(batch.bill),
        "cached": batch.cached,
        "notes": [_FORGOTTEN] if record.forgotten else [],
        "problems": _problems_as_json(batch.problems),
    }


def _bill_as_json(bill: Tally) -> dict[str, Any]:
    return {
        "calls": bill.calls,
        "billed": bill.billed,
        "uncertain": bill.uncertain,
        "throttled": bill.throttled,
        "cost_usd": float(bill.cost_usd),
        "repairs": bill.repairs,
        "repair_cost_usd": float(bill.repair_cost_usd),
    }


def _problems_as_json(problems: Iterable[Problem]) -> list[dict[str, Any]]:
    return [{"identity": p.identity, "message": p.message, "ids": list(p.ids)} for p in problems]


def show(account: Account) -> None:
    out.print(_terms(account))
    out.print(_calls(account))
    if any(b.record.forgotten for b in account.batches):
        out.print(f"Note: {_FORGOTTEN}.")
    if account.provider is not None:
        out.print(_provider_line(account.provider), markup=False)
    for batch in account.batches:
        _show_problems(f"batch {batch.record.batch}", batch.problems)
    _show_problems("all batches", account.problems)
    if not account.balanced:
        out.print("[bold red]It does not balance.[/bold red]")
    elif account.complete:
        out.print("[green]It balances, and everything has ended.[/green]")
    else:
        out.print("[green]It balances[/green]; what is in flight has still to end.")


def _terms(account: Account) -> Table:
    table = _table("submitted", "accepted", "refused", "finished", "dead", "cancelled", "in flight")
    for batch in account.batches:
        record = batch.record
        terms = (record.submissions, record.accepted, record.refused, record.finished)
        ended = (record.all_dead, record.all_cancelled)
        counts = (*map(len, terms), *map(len, ended), len(record.in_flight))
        table.add_row(printable(record.batch), *map(str, counts))
    return table


def _calls(account: Account) -> Table:
    table = _table("calls", "billed", "uncertain", "turned away", "repairs", "cached", "cost $")
    for batch in account.batches:
        bill = batch.bill
        calls = (bill.calls, bill.billed, bill.uncertain, bill.throttled, bill.repairs)
        counts = (*calls, batch.cached)
        table.add_row(printable(batch.record.batch), *map(str, counts), f"{bill.cost_usd:.6f}")
    return table


def _table(*figures: str) -> Table:
    """Two tables, since one of all figures is wider than a terminal."""
    table = Table(box=None, pad_edge=False)
    table.add_column("batch", overflow="fold")
    for figure in figures:
        table.add_column(figure, justify="right", no_wrap=True)
    return table


def _provider_line(provider: Comparison) -> str:
    if provider.reason is not None:
        return f"Provider: not comparable: {provider.reason}"
    recorded = provider.recorded
    return (
        f"Provider, all batches: it saw {provider.calls_seen} calls and charged "
        f"{provider.charged_usd} $; recorded are {recorded.calls} calls and "
        f"{recorded.throttled} turned away, {recorded.cost_usd} $, {recorded.uncertain} uncertain"
    )


def _show_problems(where: str, problems: Sequence[Problem]) -> None:
    for problem in problems:
        out.print(f"[red]{where}:[/red] ", end="")
        number = f" ({len(problem.ids)})" if problem.ids else ""
        out.print(f"{problem.message}{number}", markup=False)
        for id_ in problem.ids[:_IDS_SHOWN]:
            out.print(f"  {printable(id_)}", markup=False)
        if len(problem.ids) > _IDS_SHOWN:
            out.print(f"  and {len(problem.ids) - _IDS_SHOWN} more; --json names them all")
