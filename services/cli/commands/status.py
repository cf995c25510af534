"""`cardflow status`: how far batches are."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Annotated, Any, Final

import typer
from nats.js import JetStreamContext
from rich.markup import escape
from rich.table import Table

from services.cli.budgets.ledgers import Budget
from services.cli.budgets.showing import reached_as_json, reached_budgets, reached_line
from services.cli.common import (
    FAILED,
    DataOption,
    JsonOption,
    NatsOption,
    fail,
    nats_url,
    out,
    print_json,
)
from services.cli.machine.pauses import pauses_as_json, pauses_line
from services.cli.machine.provider_health import (
    RouteHealth,
    provider_health,
    provider_lines,
    split_pauses,
)
from services.cli.session import reported, with_jetstream
from services.cli.submitting.batch_status import (
    FIELDS,
    BatchStatus,
    batch_status,
    is_known,
    known_batches,
    unknown_batch,
)
from services.kernel.provisioning.pausing import Paused, paused_services

Reached = list[Budget]

cli = typer.Typer(add_completion=False)

_AT_ONCE: Final = 4
"""Batches counted at the same time; each costs the server up to ten answers."""
_COLUMNS: Final = (
    "batch",
    "state",
    "submitted",
    "accepted",
    "finished",
    "dead",
    "in_flight",
    "cost_usd",
)
_COLUMNS_WITH_CANCELLED: Final = (
    "batch",
    "state",
    "accepted",
    "finished",
    "dead",
    "cancelled",
    "in_flight",
    "cost_usd",
)
"""One column in place of another, so that the table still fits 80 characters."""


@cli.command()
def status(
    batch: Annotated[
        str | None, typer.Argument(help="A batch; all of them by default.", show_default=False)
    ] = None,
    *,
    data: DataOption = None,
    nats: NatsOption = None,
    json: JsonOption = False,
) -> None:
    """Show how far a batch is, what it cost, and when it will be done; or all batches.

    Derived from the streams at this moment. State: completed (all that was declared has ended
    and is stored), running, open (nothing is in flight, but its size was never declared),
    cancelling (nothing more is begun) or cancelled (all of it has ended). eta_s is null while
    unknown and 0 when all has ended. `paused`, the same on every batch, holds each paused service
    with the end of its pause, or null for one that lasts until `cardflow resume`; `waiting` those
    that wait for a provider and go on by themselves; `out_of_money` the budgets that are used up
    (see `cardflow budget`). `routes` tells of each model at each provider whether it is asked,
    until when not and why, and the limit of calls a minute that was found. Exit 1: there is no
    such batch.

    \b
    cardflow status
    cardflow status topik1 --json
    """
    with reported():
        url = nats_url(data, nats)
    if batch is None:
        statuses, around = with_jetstream(url, _all)
        _show_all(statuses, around, json=json)
    else:
        one, around = with_jetstream(url, lambda js: _one(js, batch))
        if json:
            print_json(_as_json(one, around))
        else:
            out.print(_details(one))
    if json:
        return
    for line in provider_lines(around.routes, around.waiting):
        out.print(line, markup=False, soft_wrap=True)
    if around.paused:
        out.print(pauses_line(around.paused), markup=False)
    if around.reached:
        out.print(reached_line(around.reached), markup=False)


@dataclass(frozen=True)
class _Around:
    """What is the same for every batch."""

    paused: Paused
    waiting: Paused
    routes: list[RouteHealth]
    reached: Reached


async def _around(js: JetStreamContext) -> _Around:
    routes = await provider_health(js)
    paused, waiting = split_pauses(await paused_services(js), routes)
    return _Around(paused, waiting, routes, await reached_budgets(js))


def _as_json(status: BatchStatus, around: _Around) -> dict[str, Any]:
    return {
        **status.as_json(),
        "paused": pauses_as_json(around.paused),
        "waiting": pauses_as_json(around.waiting),
        "routes": [route.as_json() for route in around.routes],
        "out_of_money": reached_as_json(around.reached),
    }


async def _one(js: JetStreamContext, batch: str) -> tuple[BatchStatus, _Around]:
    if not await is_known(js, batch):
        fail(unknown_batch(batch, await known_batches(js)), code=FAILED)
    around = await _around(js)
    reached = [b for b in around.reached if b.kind != "batch" or b.name == batch]
    return await batch_status(js, batch), replace(around, reached=reached)


async def _all(js: JetStreamContext) -> tuple[list[BatchStatus], _Around]:
    slots = asyncio.Semaphore(_AT_ONCE)

    async def one(batch: str) -> BatchStatus:
        async with slots:
            return await batch_status(js, batch)

    statuses = list(await asyncio.gather(*map(one, await known_batches(js))))
    return statuses, await _around(js)


def _show_all(statuses: list[BatchStatus], around: _Around, *, json: bool) -> None:
    if json:
        print_json([_as_json(each, around) for each in statuses])
    elif not statuses:
        out.print("There are no batches yet; `cardflow submit FILE` makes one.")
    else:
        out.print(_overview(statuses))


def _overview(statuses: list[BatchStatus]) -> Table:
    table = Table(box=None, pad_edge=False)
    with_cancelled = any(each.cancelled for each in statuses)
    columns = _COLUMNS_WITH_CANCELLED if with_cancelled else _COLUMNS
    for name in columns:
        left = name in ("batch", "state")
        title = name.removesuffix("_usd").replace("_", " ")
        table.add_column(title, justify="left" if left else "right", overflow="fold")
    for each in statuses:
        table.add_row(*(escape(_shown(each, name)) for name in columns))
    return table


def _details(status: BatchStatus) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    for name in FIELDS:
        table.add_row(
            name.removesuffix("_usd").replace("_s", "").replace("_", " "),
            escape(_shown(status, name)),
        )
    return table


def _shown(status: BatchStatus, name: str) -> str:
    value = getattr(status, name)
    if name == "cost_usd":
        return f"${value:.6f}"
    if name == "eta_s":
        return "unknown" if value is None else f"{value:.0f} s"
    return f"{value:,}" if isinstance(value, int) else str(value)
