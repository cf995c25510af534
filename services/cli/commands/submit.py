"""`cardflow submit`: terms from files to a batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any

import typer
from nats.js import JetStreamContext

from services.cli.bar import counting_bar
from services.cli.common import (
    FAILED,
    DataOption,
    JsonOption,
    NatsOption,
    fail,
    nats_url,
    print_json,
    running_endpoints,
)
from services.cli.session import reported, with_jetstream
from services.cli.submitting.affording import bound_cost
from services.cli.submitting.batch_status import cancellation_of
from services.cli.submitting.publishing import Publication, publish_submission
from services.cli.submitting.submission import Submission, default_batch, read_submission_files
from services.cli.submitting.submission_report import Outcome, show_outcome, show_problems
from services.cli.submitting.waiting import dead_terms, status_bar, wait_for_batch
from services.kernel import topology
from services.kernel.contracts.term import DECK_MAX_CHARACTERS, Priority
from services.kernel.fleet.money.limits import limit_of

TimeoutOption = Annotated[
    float | None,
    typer.Option(
        help="With --wait: exit 1 after so many seconds. (default: none)",
        min=0,
        show_default=False,
    ),
]
PriorityOption = Annotated[
    Priority | None,
    typer.Option(
        help="For all rows: urgent terms go first, bulk terms last. (default: the row's own, else "
        "normal)",
        show_default=False,
    ),
]

BatchOption = Annotated[
    str | None,
    typer.Option(
        help="Name of the batch; one that exists is added to. "
        "(default: the file's name and the time)",
        show_default=False,
    ),
]
DeckOption = Annotated[
    str | None,
    typer.Option(
        help="Deck for all rows. (default: the row's own, else the batch's name)",
        show_default=False,
    ),
]
MaxCostOption = Annotated[
    str | None,
    typer.Option(
        metavar="USD",
        help="Publish nothing if more is expected, and never spend more. (default: no bound)",
        show_default=False,
    ),
]

cli = typer.Typer(add_completion=False)


@cli.command()
def submit(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE...", help="CSV, TSV, XLSX, JSONL or plain lists; - is standard input."
        ),
    ],
    *,
    batch: BatchOption = None,
    deck: DeckOption = None,
    priority: PriorityOption = None,
    max_cost: MaxCostOption = None,
    wait: Annotated[bool, typer.Option("--wait", help="Until every term has ended.")] = False,
    timeout_s: TimeoutOption = None,
    data: DataOption = None,
    nats: NatsOption = None,
    json: JsonOption = False,
) -> None:
    """Publish the terms of word lists, and say which of them will be refused.

    Each row goes to `terms.submit.<batch>`. Exit 0: all rows are published and, with --wait, all
    terms have ended, in cards or as dead letters that say why. Exit 1: not all were published,
    the time was up, the batch was cancelled, or --max-cost is less than the expected cost
    (`cardflow estimate`). Otherwise --max-cost becomes the batch's budget; adding adds to it.

    A term that waits already goes first when it is submitted again, to the same batch, as urgent.

    \b
    cardflow submit words.csv --wait
    cardflow submit words.csv --max-cost 0.50
    cardflow submit topik1.xlsx --batch topik1 --deck "TOPIK 1" --priority bulk
    echo 책 | cardflow submit - --json
    """
    check_names(batch, deck)
    if timeout_s is not None and not wait:
        fail("--timeout-s needs --wait: without it nothing is waited for")
    with reported():
        url = nats_url(data, nats)
        read = read_submission_files(files, deck=deck, priority=priority)
        bound = None if max_cost is None else limit_of(max_cost, "--max-cost")
    name = batch or default_batch(files[0], datetime.now(UTC))
    if not read.payloads:
        _report_nothing(name, read, json=json)

    asked = _Asked(name, read, deck, bound, wait, timeout_s)
    outcome = with_jetstream(url, lambda js: _submit(js, asked, running_endpoints(data, nats)))
    if json:
        print_json(outcome.as_json())
    else:
        show_outcome(outcome)
    if not outcome.is_whole:
        raise typer.Exit(FAILED)


@dataclass(frozen=True)
class _Asked:
    """What is to be submitted, and how; `bound`: what it may cost."""

    batch: str
    read: Submission
    deck: str | None
    bound: Decimal | None
    wait: bool
    timeout_s: float | None


async def _submit(
    js: JetStreamContext, asked: _Asked, endpoints: Mapping[str, Any] | None
) -> Outcome:
    batch, read = asked.batch, asked.read
    await _refuse_cancelled(js, batch)
    bounded = None
    if asked.bound is not None:
        bounded = await bound_cost(js, batch, read, asked.bound, endpoints)
    publication = await _publish(js, batch, read, asked.deck)
    outcome = Outcome(batch, read, publication, bounded=bounded)
    if not asked.wait or publication.broken_off:
        return outcome
    with status_bar(batch) as on_status:
        status = await wait_for_batch(js, batch, timeout_s=asked.timeout_s, on_status=on_status)
    return replace(outcome, status=status, dead=await dead_terms(js, batch))


async def _refuse_cancelled(js: JetStreamContext, batch: str) -> None:
    """Ends the command (exit 1) for a batch whose terms would all be cancelled at once."""
    # Asked for first: a stream that does not exist gives no answer to what is asked next.
    await js.stream_info(topology.BATCHES.name)
    event = await cancellation_of(js, batch)
    if event is not None:
        since = event.cancelled_at.astimezone().strftime("%Y-%m-%d %H:%M:%S")
        fail(
            f"batch {batch} has been cancelled since {since}, so nothing was published; submit "
            f"under another name with --batch, or take it up again: cardflow cancel {batch} --undo",
            code=FAILED,
        )


def check_names(batch: str | None, deck: str | None) -> None:
    """Ends the command (exit 2) for names that every row would be refused for."""
    if batch is not None and not topology.is_batch_name(batch):
        fail(
            f"{batch!r} is no batch name; use 1-64 of A-Z a-z 0-9 _ - and begin with a letter or "
            "digit"
        )
    if deck is not None and not (deck.strip() and len(deck) <= DECK_MAX_CHARACTERS):
        fail(f"--deck has {len(deck)} characters; give a name of 1-{DECK_MAX_CHARACTERS}")


async def _publish(
    js: JetStreamContext, batch: str, read: Submission, deck: str | None
) -> Publication:
    with counting_bar("publishing", len(read.payloads)) as on_published:
        return await publish_submission(
            js, batch, read.payloads, deck=deck, now=datetime.now(UTC), on_published=on_published
        )


def _report_nothing(batch: str, read: Submission, *, json: bool) -> None:
    if json:
        print_json(Outcome(batch, read, Publication(expected=0)).as_json())
    else:
        show_problems("held nothing to publish", read.unsendable)
    fail("no row held a term, so no batch was opened", code=FAILED)
