"""`cardflow cancel`: stop spending on a batch, or take it up again."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any

import typer
from nats.js import JetStreamContext

from services.cli.common import (
    FAILED,
    DataOption,
    JsonOption,
    NatsOption,
    err,
    fail,
    nats_url,
    out,
    print_json,
)
from services.cli.letters.letter_options import DEFAULT_RATE, RateOption, YesOption
from services.cli.printable import printable
from services.cli.session import reported, with_jetstream
from services.cli.submitting.batch_status import (
    BatchStatus,
    batch_status,
    cancellation_of,
    is_known,
    known_batches,
    unknown_batch,
)
from services.cli.submitting.cancelling import TakenUp, cancel_batch, take_up_again
from services.cli.submitting.submission_report import ending_of
from services.cli.submitting.waiting import status_bar, wait_for_batch
from services.kernel.contracts.batch import BatchCancelled

cli = typer.Typer(add_completion=False)


@cli.command()
def cancel(
    batch: Annotated[str, typer.Argument(help="The batch.")],
    *,
    note: Annotated[
        str | None, typer.Option("--note", help="Why; kept with the batch.", show_default=False)
    ] = None,
    undo: Annotated[
        bool, typer.Option("--undo", help="Take it up again, and send again what was cancelled.")
    ] = False,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Don't wait until nothing is in flight.")
    ] = False,
    timeout_s: Annotated[
        float | None,
        typer.Option(
            help="Exit 1 when something is in flight after so many seconds. (default: none)",
            min=0,
            show_default=False,
        ),
    ] = None,
    rate: RateOption = DEFAULT_RATE,
    yes: YesOption = False,
    data: DataOption = None,
    nats: NatsOption = None,
    json: JsonOption = False,
) -> None:
    """Stop spending on a batch at once; what is finished stays.

    No further model call is begun. Calls that are under way end and are paid for; terms that have
    not ended are put on record as cancelled (`dead-letters list --cancelled`). --undo takes the
    batch up again where it was. Both may be repeated. Exit 1: there is no such batch, or the time
    was up.

    \b
    cardflow cancel monday --note "wrong list"
    cardflow cancel monday --undo
    """
    with reported():
        url = nats_url(data, nats)
    status, before = with_jetstream(url, partial(_look, batch=batch))
    if undo:
        taken_up = with_jetstream(url, partial(_take_up_again, batch=batch, rate=rate))
        _report_taken_up(batch, taken_up, json=json)
        return
    if before is None and not yes and sys.stdin.isatty():
        typer.confirm(_question(status), abort=True, err=True)
    work = partial(_cancel, batch=batch, note=note, wait=not no_wait, timeout_s=timeout_s)
    event, status, is_new = with_jetstream(url, work)
    _report(event, status, is_new=is_new, wait=not no_wait, json=json)


async def _look(js: JetStreamContext, *, batch: str) -> tuple[BatchStatus, BatchCancelled | None]:
    if not await is_known(js, batch):
        fail(unknown_batch(batch, await known_batches(js)), code=FAILED)
    return await batch_status(js, batch), await cancellation_of(js, batch)


def _question(status: BatchStatus) -> str:
    left = max(0, status.total - status.ended)
    return f"Cancel batch {status.batch}? {left:,} of {status.total:,} terms have not ended."


async def _cancel(
    js: JetStreamContext, *, batch: str, note: str | None, wait: bool, timeout_s: float | None
) -> tuple[BatchCancelled, BatchStatus, bool]:
    """The event, what the batch came to, and whether it was this command that cancelled it."""
    now = datetime.now(UTC)
    event = await cancel_batch(js, batch, note=note, at=now)
    if wait:
        with status_bar(batch) as on_status:
            status = await wait_for_batch(js, batch, timeout_s=timeout_s, on_status=on_status)
    else:
        status = await batch_status(js, batch)
    return event, status, event.cancelled_at == now


def _report(
    event: BatchCancelled, status: BatchStatus, *, is_new: bool, wait: bool, json: bool
) -> None:
    if json:
        answer: dict[str, Any] = {
            "batch": event.batch,
            "outcome": "cancelled" if is_new else "cancelled_before",
            "cancelled_at": event.cancelled_at.isoformat(),
            "note": event.note,
            "status": status.as_json(),
        }
        print_json(answer)
    else:
        out.print(_headline(event, is_new=is_new), markup=False)
        out.print(ending_of(status), markup=False)
        if status.cancelled:
            out.print(f"Take it up again: cardflow cancel {event.batch} --undo", markup=False)
    if wait and not status.is_over:
        fail(
            f"the time is up with {status.in_flight:,} terms in flight; nothing is begun any more, "
            f"see `cardflow status {event.batch}`",
            code=FAILED,
        )


def _headline(event: BatchCancelled, *, is_new: bool) -> str:
    if is_new:
        return f"Batch {event.batch} is cancelled."
    since = event.cancelled_at.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    note = f": {printable(event.note)}" if event.note else ""
    return f"Batch {event.batch} has been cancelled since {since}{note}."


async def _take_up_again(js: JetStreamContext, *, batch: str, rate: float) -> TakenUp:
    return await take_up_again(js, batch, at=datetime.now(UTC), per_second=rate)


def _report_taken_up(batch: str, taken_up: TakenUp, *, json: bool) -> None:
    if json:
        print_json(
            {
                "batch": batch,
                "outcome": "undone" if taken_up.was_cancelled else "not_cancelled",
                "replayed": taken_up.replayed,
                "failed": taken_up.failed,
            }
        )
    elif taken_up.was_cancelled:
        out.print(f"Batch {batch} goes on: {taken_up.replayed:,} terms were sent again.")
        err.print(f"See how far it is: cardflow status {batch}", markup=False)
    else:
        out.print(f"Batch {batch} is not cancelled.", markup=False)
    if taken_up.failed:
        fail(
            f"{taken_up.failed:,} terms are still cancelled; the same command goes on with them",
            code=FAILED,
        )
