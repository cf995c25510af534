"""`cardflow budget`: what may be spent, what was spent, and what is left."""

from __future__ import annotations

from typing import Annotated

import typer
from nats.js import JetStreamContext

from services.cli.budgets.changing import change_limits, read_changes
from services.cli.budgets.ledgers import Budget, Ledgers
from services.cli.budgets.recounting import recount as recount_accounts
from services.cli.budgets.showing import budget_table, hidden_line
from services.cli.common import DataOption, JsonOption, NatsOption, fail, nats_url, out, print_json
from services.cli.session import reported, with_jetstream
from services.kernel.fleet.money.words import usd

DayOption = Annotated[
    str | None,
    typer.Option(metavar="USD", help="What all stages may spend a day.", show_default=False),
]
StageOption = Annotated[
    list[str] | None,
    typer.Option(metavar="STAGE=USD", help="What a stage may spend in all.", show_default=False),
]
BatchOption = Annotated[
    list[str] | None,
    typer.Option(metavar="BATCH=USD", help="What a batch may cost.", show_default=False),
]
UnsetOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="WHAT",
        help="Take a budget away: day, stage1, stage2 or batch=NAME. For day and stages the "
        "settings hold then.",
        show_default=False,
    ),
]
RecountOption = Annotated[
    bool,
    typer.Option(
        "--recount",
        help="Work the accounts out from the ledger of calls; only while nothing is paid.",
    ),
]
Changed = list[tuple[Budget, Budget]]

cli = typer.Typer(add_completion=False)


@cli.command()
def budget(
    *,
    day: DayOption = None,
    stage: StageOption = None,
    batch: BatchOption = None,
    unset: UnsetOption = None,
    recount: RecountOption = False,
    data: DataOption = None,
    nats: NatsOption = None,
    json: JsonOption = False,
) -> None:
    """Set what may be spent, in US dollars, and show what was; without options only show.

    A change holds on all replicas within seconds and outlives restarts. Before each call its worst
    case is reserved, so a budget is never passed. When one of a day (in UTC) or a stage is used
    up, calls wait; over a batch's own budget its terms wait and other batches go on. No term is
    given up, and all goes on by itself when the budget is raised, or the day is over.

    left = limit - settled - reserved - uncertain. Uncertain is what calls may have cost whose end
    nobody saw: an upper bound, until --recount.

    \b
    cardflow budget --day 5
    cardflow budget --stage stage2=20 --batch monday=0.50
    cardflow budget --unset day
    cardflow budget --json
    """
    with reported():
        url = nats_url(data, nats)
        changes = read_changes(day, stage or [], batch or [], unset or [])
    if recount and changes:
        fail("give either --recount or new budgets, not both")

    async def work(js: JetStreamContext) -> tuple[Changed, list[Budget]]:
        ledgers = await Ledgers.open(js)
        changed = await recount_accounts(ledgers) if recount else []
        await change_limits(ledgers, changes)
        return changed, await ledgers.budgets()

    recounted, budgets = with_jetstream(url, work)
    if json:
        print_json({"accounts": [each.as_json() for each in budgets]})
    else:
        _show(recounted, budgets)


def _show(recounted: Changed, budgets: list[Budget]) -> None:
    for before, after in recounted:
        out.print(
            f"{after.kind} {after.name}: settled {usd(before.settled)} → {usd(after.settled)}, "
            f"uncertain {usd(before.uncertain)} → {usd(after.uncertain)}",
            markup=False,
        )
    out.print(budget_table(budgets))
    if line := hidden_line(budgets):
        out.print(line, markup=False)
