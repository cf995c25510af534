"""Budgets for people: a table, and one line where something waits for money."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

from nats.js import JetStreamContext
from nats.js.errors import NotFoundError
from rich.markup import escape
from rich.table import Table

from services.cli.budgets.ledgers import Budget, Ledgers
from services.kernel.fleet.money.limits import day_of
from services.kernel.fleet.money.words import usd

_SHOWN_DAYS: Final = 7
_SHOWN_BATCHES: Final = 50


def budget_table(budgets: Sequence[Budget]) -> Table:
    """The last days, the stages, and the batches, those with a limit first."""
    table = Table(box=None, pad_edge=False)
    for name in ("account", "limit", "settled", "reserved", "uncertain", "left"):
        table.add_column(name, justify="left" if name == "account" else "right", overflow="fold")
    for budget in _shown(budgets):
        cells = (
            f"{budget.kind} {budget.name}",
            _amount(budget.limit),
            _amount(budget.settled),
            _amount(budget.reserved),
            _amount(budget.uncertain),
            "used up" if budget.is_reached else _amount(budget.left),
        )
        table.add_row(*map(escape, cells), style="red" if budget.is_reached else None)
    return table


def _shown(budgets: Sequence[Budget]) -> list[Budget]:
    days = [b for b in budgets if b.kind == "day"][:_SHOWN_DAYS]
    batches = sorted((b for b in budgets if b.kind == "batch"), key=lambda b: b.limit is None)
    stages = [b for b in budgets if b.kind == "stage"]
    return [*days, *stages, *batches[:_SHOWN_BATCHES]]


def hidden_line(budgets: Sequence[Budget]) -> str | None:
    """How many are not in the table."""
    hidden = len(budgets) - len(_shown(budgets))
    return f"… and {hidden:,} older or unlimited ones; --json lists all" if hidden else None


async def reached_budgets(js: JetStreamContext) -> list[Budget]:
    """What is used up now; nothing where no money was ever counted."""
    try:
        ledgers = await Ledgers.open(js)
    except NotFoundError:
        return []
    today = day_of(ledgers.now)
    return [
        budget
        for budget in await ledgers.budgets()
        if budget.is_reached and (budget.kind != "day" or budget.name == today)
    ]


def reached_line(reached: Sequence[Budget]) -> str:
    """`out of money: day 2026-05-04 ($5.00 of $5.00); raise it with: cardflow budget …`."""
    parts = ", ".join(
        f"{b.kind} {b.name} ({usd(b.settled + b.uncertain)} of {usd(b.limit or Decimal(0))})"
        for b in reached
    )
    return f"out of money: {parts}; raise it with: cardflow budget"


def reached_as_json(reached: Sequence[Budget]) -> list[dict[str, Any]]:
    return [budget.as_json() for budget in reached]


def _amount(amount: Decimal | None) -> str:
    return "none" if amount is None else usd(amount)
