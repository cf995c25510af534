"""`cardflow status`: how far batches are."""

from __future__ import annotations

import asyncio
from typing import Annotated, Final

import typer
from nats.js import JetStreamContext
from rich.markup import escape
from rich.table import Table

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
from services.cli.session import reported, with_jetstream
from services.cli.submitting.batch_status import (
    FIELDS,
    BatchStatus,
    batch_status,
    is_known,
    known_batches,
    unknown_batch,
)

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
    unknown and 0 when all has ended. Exit 1: there is no such batch.

    \b
    cardflow status
    cardflow status topik1 --json
    """
    with reported():
        url = nats_url(data, nats)
    if batch is None:
        statuses = with_jetstream(url, _all)
        _show_all(statuses, json=json)
        return
    one = with_jetstream(url, lambda js: _one(js, batch))
    if json:
        print_json(one.as_json())
    else:
        out.print(_details(one))


async def _one(js: JetStreamContext, batch: str) -> BatchStatus:
    if not await is_known(js, batch):
        fail(unknown_batch(batch, await known_batches(js)), code=FAILED)
    return await batch_status(js, batch)


async def _all(js: JetStreamContext) -> list[BatchStatus]:
    slots = asyncio.Semaphore(_AT_ONCE)

    async def one(batch: str) -> BatchStatus:
        async with slots:
            return await batch_status(js, batch)

    return list(await asyncio.gather(*map(one, await known_batches(js))))


def _show_all(statuses: list[BatchStatus], *, json: bool) -> None:
    if json:
        print_json([each.as_json() for each in statuses])
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
