"""`cardflow drain`: take no more submissions, finish everything, report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Final

import typer
from nats.js import JetStreamContext
from rich.table import Table

from services.cli.bar import figures_bar
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
from services.cli.interrupting import Interrupted, stop_signal, unless
from services.cli.machine.draining import AFTER_INGEST, Drain, Drained
from services.cli.machine.pauses import pauses_line
from services.cli.session import reported, with_jetstream
from services.kernel.topology import ServiceName

_INTERRUPTED: Final = 130
_STAYS_PAUSED: Final = (
    "ingest stays paused: submissions wait on their stream until `cardflow resume ingest`"
)
_COLUMNS: Final = ("batch", "finished", "dead", "cancelled", "in_flight")

cli = typer.Typer(add_completion=False)


@cli.command()
def drain(
    *,
    timeout_s: Annotated[
        float | None,
        typer.Option(
            "--timeout",
            help="Exit 1 after so many seconds. (default: none)",
            min=0,
            show_default=False,
        ),
    ] = None,
    data: DataOption = None,
    nats: NatsOption = None,
    json: JsonOption = False,
) -> None:
    """Take no more submissions, finish everything that was accepted, and report.

    What was submitted before is read, then ingest is paused: later submissions wait safely on
    their stream until `cardflow resume ingest`. Ends when every accepted term has become cards in
    the store, a dead letter, or was cancelled. Exit 0: drained. Exit 1: the time was up, or a
    paused service would have kept it waiting for ever. Ctrl-C leaves ingest as it is by then.

    \b
    cardflow drain --timeout 600 && systemctl stop cardflow
    cardflow drain --json
    """
    with reported():
        url = nats_url(data, nats)
    drained = with_jetstream(url, lambda js: _drain(js, timeout_s))
    if drained is None:
        raise typer.Exit(_INTERRUPTED)
    if json:
        print_json(drained.as_json())
    else:
        _show(drained)
    if not drained.is_drained:
        raise typer.Exit(FAILED)


async def _drain(js: JetStreamContext, timeout_s: float | None) -> Drained | None:
    """None when it was broken off."""
    stop = stop_signal()
    with _bar() as on_look:
        work = Drain(js, on_look)
        try:
            return await unless(stop, work.run(timeout_s=timeout_s))
        except Interrupted:
            pass
    err.print(
        f"broken off; {_STAYS_PAUSED}" if work.ingest_paused else "broken off; nothing is paused",
        markup=False,
    )
    return None


@contextmanager
def _bar() -> Iterator[Callable[[Mapping[ServiceName, int]], None]]:
    """A bar on standard error of what is open after ingest; nothing off a terminal."""
    with figures_bar("draining") as (move, _clock):
        most = 0

        def show(open_: Mapping[ServiceName, int]) -> None:
            nonlocal most
            left = sum(open_[service] for service in AFTER_INGEST)
            most = max(most, left)
            figures = " · ".join(f"{name} {count:,}" for name, count in open_.items())
            move(most - left, most, figures)

        yield show


def _show(drained: Drained) -> None:
    if drained.blocked:
        out.print(f"Not drained: {pauses_line(drained.blocked)}", markup=False)
    elif not drained.is_drained:
        left = ", ".join(f"{drained.open[name]:,} at {name}" for name in AFTER_INGEST)
        out.print(f"The time is up; still in flight: {left}. They go on.", markup=False)
    else:
        out.print("Drained: every accepted term has ended.")
    if drained.batches:
        out.print(_table(drained))
    if drained.waiting or not drained.ingest_paused:
        out.print(f"{drained.waiting:,} submissions wait for ingest.")
    if drained.ingest_paused:
        out.print(_STAYS_PAUSED[0].upper() + _STAYS_PAUSED[1:] + ".", markup=False)
    for batch in drained.unaccounted:
        out.print(
            f"{batch.in_flight:,} terms of {batch.batch} are with nobody: "
            f"see `cardflow audit {batch.batch}`",
            markup=False,
        )


def _table(drained: Drained) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in _COLUMNS:
        justify = "left" if name == "batch" else "right"
        table.add_column(name.replace("_", " "), justify=justify)  # type: ignore[arg-type]
    for batch in drained.batches:
        counts = (getattr(batch, name) for name in _COLUMNS[1:])
        table.add_row(batch.batch, *(f"{count:,}" for count in counts))
    return table
