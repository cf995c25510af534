"""`cardflow watch`: the finished cards as they come."""

from __future__ import annotations

import asyncio
import io
import os
import stat
import sys
from collections.abc import Callable, Coroutine
from contextlib import aclosing, suppress
from typing import Annotated, Any, Final

import typer
from nats.js import JetStreamContext
from pydantic import ValidationError

from services.cli.common import DataOption, JsonOption, NatsOption, err, fail, nats_url
from services.cli.interrupting import cancelled, stop_signal
from services.cli.printable import printable
from services.cli.session import reported, with_jetstream
from services.cli.submitting.batch_status import batch_status, cancellation_of
from services.kernel import topology
from services.kernel.contracts.card import CardsFinished
from services.kernel.nats_faults import NATS_FAULTS
from services.kernel.stream.reading import follow

cli = typer.Typer(add_completion=False)

_LINE_MAX_CHARACTERS: Final = 1_000
_LOOK_S: Final = 1.0
"""How often a batch that is watched is asked whether it was cancelled."""
_LAST_CARD_S: Final = 1.0
"""Cards are shown within 0.25 s."""


@cli.command()
def watch(
    batch: Annotated[
        str | None, typer.Argument(help="One batch; all of them by default.", show_default=False)
    ] = None,
    *,
    from_start: Annotated[
        bool, typer.Option("--from-start", help="First what is in the stream already.")
    ] = False,
    count: Annotated[
        int | None, typer.Option(help="End after so many terms.", min=1, show_default=False)
    ] = None,
    data: DataOption = None,
    nats: NatsOption = None,
    json: JsonOption = False,
) -> None:
    """Follow the stream of finished cards, one term a line, until Ctrl-C or SIGTERM.

    With --json each line is the event as it was published. The time is from the submission to
    the last card. A batch that is cancelled is followed until nothing of it is in flight.

    \b
    cardflow watch
    cardflow watch topik1 --from-start --json | jq -r .analysis.primary_meaning
    """
    if batch is not None and not topology.is_batch_name(batch):
        fail(f"{batch!r} is no batch name; `cardflow status` lists the batches")
    with reported():
        url = nats_url(data, nats)
    show = _show_event if json else _show_line

    async def work(js: JetStreamContext) -> None:
        subject = topology.finished_subject(batch or "*", "*")
        following = _follow(js, subject, show, from_start=from_start, count=count)
        await until_stopped(following if batch is None else _unless_cancelled(js, batch, following))

    try:
        with_jetstream(url, work)
    except BrokenPipeError:
        _forget_output()


async def _follow(
    js: JetStreamContext,
    subject: str,
    show: Callable[[bytes], None],
    *,
    from_start: bool,
    count: int | None,
) -> None:
    seen = 0
    events = follow(js, topology.CARDS.name, subject, from_start=from_start)
    async with aclosing(events) as messages:
        async for message in messages:
            show(message.data)
            seen += 1
            if seen == count:
                return


async def _unless_cancelled(
    js: JetStreamContext, batch: str, following: Coroutine[Any, Any, None]
) -> None:
    """Follows to its end, or until the batch is cancelled and its last card was shown."""
    cards = asyncio.ensure_future(following)
    end = asyncio.ensure_future(_cancelled_and_over(js, batch))
    try:
        await asyncio.wait([cards, end], return_when=asyncio.FIRST_COMPLETED)
        for each in (cards, end):
            if each.done():
                each.result()
        if end.done():
            err.print(f"Batch {batch} was cancelled; nothing of it is in flight.", markup=False)
    finally:
        await cancelled(end)
        await cancelled(cards)


async def _cancelled_and_over(js: JetStreamContext, batch: str) -> None:
    """Returns a moment after the last card of a cancelled batch."""
    is_over = False
    while not is_over:
        await asyncio.sleep(_LOOK_S)
        with suppress(*NATS_FAULTS):  # Whether the server is gone for good, following finds out.
            is_cancelled = await cancellation_of(js, batch) is not None
            is_over = is_cancelled and (await batch_status(js, batch)).is_over
    await asyncio.sleep(_LAST_CARD_S)


async def until_stopped(work: Coroutine[Any, Any, None]) -> None:
    """Runs `work` until it ends, SIGINT or SIGTERM comes, or nobody reads our output any more."""
    stopped = stop_signal()
    pipe = _output_pipe()
    if pipe is not None:
        # The end for writing never has anything to read: what wakes us is the closed other end.
        asyncio.get_running_loop().add_reader(pipe, stopped.set)
    task = asyncio.ensure_future(work)
    stop = asyncio.create_task(stopped.wait())
    await asyncio.wait([task, stop], return_when=asyncio.FIRST_COMPLETED)
    for each in (stop, task):
        await cancelled(each)
    if not task.cancelled():
        task.result()


def _output_pipe() -> int | None:
    try:
        number = sys.stdout.fileno()
    except (io.UnsupportedOperation, ValueError):
        return None
    return number if stat.S_ISFIFO(os.fstat(number).st_mode) else None


def _forget_output() -> None:
    """Python flushes standard output at its end, and would complain about the closed pipe."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stdout.fileno())
    os.close(devnull)


def _show_event(data: bytes) -> None:
    # A line break between two JSON tokens is white space; inside of a string there is none.
    typer.echo(data.decode("utf-8", "replace").replace("\n", " ").replace("\r", " "))


def _show_line(data: bytes) -> None:
    try:
        typer.echo(line_of(CardsFinished.model_validate_json(data)))
    except ValidationError as error:
        fault = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(map(str, fault["loc"]))
        err.print(f"an event that is no finished cards: {place}: {fault['msg']}", markup=False)


def line_of(event: CardsFinished) -> str:
    """`책[tɕʰɛk̚]  noun  book  · Scene, Hanja  · $0.00012 · 1.2 s`."""
    cards = ", ".join(dict.fromkeys(card.tab_name for card in event.cards))
    cost_usd = event.stage1.cost_usd + event.stage2.cost_usd
    took_s = max(0.0, (event.finished_at - event.submitted_at).total_seconds())
    analysis = event.analysis
    return printable(
        f"{analysis.term}  {event.pos}  {analysis.primary_meaning}  · {cards}  · "
        f"${cost_usd:.5f} · {took_s:.1f} s",
        _LINE_MAX_CHARACTERS,
    )
