"""`cardflow limits`: how fast the stages may call, over all replicas, while they run."""

from __future__ import annotations

from typing import Annotated

import typer
from nats.js import JetStreamContext
from rich.table import Table

from services.cli.common import (
    FAILED,
    DataOption,
    JsonOption,
    NatsOption,
    err,
    nats_url,
    out,
    print_json,
)
from services.cli.machine.stage_limits import (
    KINDS,
    STAGES,
    StageView,
    checked_limits,
    set_limits,
    stage_named,
    stage_view,
    unset_limits,
    view_once_heard,
)
from services.cli.session import reported, with_jetstream
from services.kernel.errors import SettingsError
from services.kernel.fleet.pace.limits import StageLimits

cli = typer.Typer(add_completion=False)


RequestsOption = Annotated[
    float | None,
    typer.Option(metavar="N", help="Calls in any minute; 0: no limit.", show_default=False),
]
TokensOption = Annotated[
    float | None,
    typer.Option(
        metavar="N",
        help="Tokens of prompts and completions in any minute; 0: no limit.",
        show_default=False,
    ),
]
InFlightOption = Annotated[
    int | None,
    typer.Option(metavar="N", help="Calls under way at once; 0: no limit.", show_default=False),
]


@cli.command()
def limits(
    stage: Annotated[
        str | None,
        typer.Argument(help="stage1 or stage2; both are shown by default.", show_default=False),
    ] = None,
    *,
    requests: RequestsOption = None,
    tokens: TokensOption = None,
    in_flight: InFlightOption = None,
    unset: Annotated[
        bool, typer.Option("--unset", help="Let the settings of the stage hold again.")
    ] = False,
    data: DataOption = None,
    nats: NatsOption = None,
    json: JsonOption = False,
) -> None:
    """Show the limits of the stages, or change one while it runs.

    A limit is one of all replicas of the stage together, however many there are. What is set here
    holds over the settings until --unset, also after a restart. The command returns when every
    replica goes by it; exit 1: some have not said so yet. An answer from the cache takes nothing
    of a limit.

    \b
    cardflow limits
    cardflow limits stage1 --requests 600 --tokens 400000
    cardflow limits stage2 --in-flight 50
    cardflow limits stage1 --unset
    """
    with reported():
        url = nats_url(data, nats)
        changes = checked_limits(
            {
                "requests_per_minute": requests,
                "tokens_per_minute": tokens,
                "calls_in_flight": in_flight,
            }
        )
        names = [stage_named(stage)] if stage is not None else list(STAGES)
        is_change = unset or changes != StageLimits()
        if is_change and stage is None:
            raise SettingsError("name the stage to change, for example: cardflow limits stage1 ...")
        if unset and changes != StageLimits():
            raise SettingsError("--unset takes all limits of the stage back; give it alone")

    async def work(js: JetStreamContext) -> list[StageView]:
        if not is_change:
            return [await stage_view(js, name) for name in names]
        if unset:
            await unset_limits(js, names[0])
        else:
            await set_limits(js, names[0], changes)
        return [await view_once_heard(js, names[0])]

    views = with_jetstream(url, work)
    if json:
        print_json([view.as_json() for view in views])
    else:
        out.print(_table(views))
    _note_disagreement(views, is_change=is_change)


def _note_disagreement(views: list[StageView], *, is_change: bool) -> None:
    for view in views:
        if not view.replicas:
            err.print(f"No replica of {view.stage} is running; its settings are not known here.")
        elif not view.agree:
            err.print(
                f"The replicas of {view.stage} go by different limits: see that they have the same "
                "settings and reach NATS (cardflow doctor)."
            )
            if is_change:
                raise typer.Exit(FAILED)


def _table(views: list[StageView]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("stage")
    table.add_column("limit")
    for column in ("in force", "now"):
        table.add_column(column, justify="right")
    table.add_column("from")
    table.add_column("replicas", justify="right")
    for view in views:
        for place, (kind, words) in enumerate(KINDS.items()):
            first = (view.stage, str(len(view.replicas))) if place == 0 else ("", "")
            limit = view.in_force(kind)
            shown = "unknown" if limit is None else f"{limit:,.10g}" if limit else "none"
            table.add_row(
                first[0], words, shown, f"{view.used[kind]:,}", view.source(kind), first[1]
            )
    return table
