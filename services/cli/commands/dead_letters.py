"""`cardflow dead-letters`: look at what was given up on, send it again, or decide against it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final, TypeVar

import typer
from nats.js import JetStreamContext
from rich.progress import Progress

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
from services.cli.letters.letters import (
    Letter,
    LetterNotFound,
    Letters,
    Wanted,
    choose_letters,
    find_letter,
    read_letters,
)
from services.cli.letters.letters_shown import as_json, as_row, as_story, table_of
from services.cli.letters.replaying import discard, replay
from services.cli.session import reported, with_jetstream
from services.kernel import topology
from services.kernel.errors import Outage
from services.kernel.nats_faults import NATS_FAULTS

T = TypeVar("T")

_AT_ONCE: Final = 20
"""Letters worked on at once: quick, and gentle to a pipeline that is at work."""

cli = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Messages that were given up on: list, show, replay and discard them.\n\n"
    "An ID may be shortened as long as it is clear: `cardflow dead-letters show k3f`. Where the "
    "same term died in two batches, name it in full: `stage1/monday/k3f9…`.",
)

IdsArgument = Annotated[list[str] | None, typer.Argument(metavar="[ID]...", show_default=False)]
BatchOption = Annotated[
    str | None, typer.Option("--batch", help="Only those of this batch.", show_default=False)
]
ServiceOption = Annotated[
    str | None,
    typer.Option(
        "--service", help=f"Only those of {', '.join(topology.SERVICES)}.", show_default=False
    ),
]
ReasonOption = Annotated[
    str | None,
    typer.Option("--reason", help="Only those with this reason code.", show_default=False),
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")]


@cli.command(name="list")
def list_command(
    *,
    batch: BatchOption = None,
    service: ServiceOption = None,
    reason: ReasonOption = None,
    everything: Annotated[bool, typer.Option("--all", help="The discarded ones, too.")] = False,
    data: DataOption = None,
    nats: NatsOption = None,
    json: JsonOption = False,
) -> None:
    """What was given up on and still waits for somebody to decide, oldest first.

    \b
    cardflow dead-letters list --batch monday --reason attempts_used_up
    """
    wanted = Wanted(batch=batch, service=service, reason=reason)
    read = _on_stream(lambda js: read_letters(js, wanted), data, nats)
    letters = [x for x in _warn_of_unreadable(read) if everything or not x.is_discarded]
    if json:
        print_json([as_row(letter) for letter in letters])
    elif letters:
        out.print(table_of(letters))
        out.print("Whole story: cardflow dead-letters show ID · again: replay ID")
    else:
        out.print("No dead letters.")


@cli.command()
def show(
    id_: Annotated[str, typer.Argument(metavar="ID", help="An id, or its beginning.")],
    *,
    data: DataOption = None,
    nats: NatsOption = None,
    json: JsonOption = False,
) -> None:
    """All that is known of one: reason, causes, each attempt with its cost, the message itself.

    \b
    cardflow dead-letters show stage1/monday/k3f
    """
    letter = _on_stream(lambda js: find_letter(js, id_), data, nats)
    if json:
        print_json(as_json(letter))
    else:
        out.print(as_story(letter))


@cli.command(name="replay")
def replay_command(
    ids: IdsArgument = None,
    *,
    batch: BatchOption = None,
    service: ServiceOption = None,
    reason: ReasonOption = None,
    everything: Annotated[bool, typer.Option("--all", help="All that wait.")] = False,
    yes: YesOption = False,
    data: DataOption = None,
    nats: NatsOption = None,
    json: JsonOption = False,
) -> None:
    """Send the original messages again, with a new count of attempts. Twice is once.

    Filters leave discarded letters alone; naming one by its ID replays it.

    \b
    cardflow dead-letters replay k3f
    cardflow dead-letters replay --batch monday --reason attempts_used_up --yes
    """
    wanted = Wanted(ids or (), batch, service, reason, everything)

    async def act(js: JetStreamContext, letter: Letter) -> str:
        return await replay(js, letter)

    _act_on(wanted, "Replay", act, data=data, nats=nats, yes=yes, json=json)


@cli.command(name="discard")
def discard_command(
    ids: IdsArgument = None,
    *,
    note: Annotated[str, typer.Option("--note", help="Why; kept with the letter.")] = "",
    batch: BatchOption = None,
    service: ServiceOption = None,
    reason: ReasonOption = None,
    everything: Annotated[bool, typer.Option("--all", help="All that wait.")] = False,
    yes: YesOption = False,
    data: DataOption = None,
    nats: NatsOption = None,
    json: JsonOption = False,
) -> None:
    """Decide against sending them again. They stay on record (`list --all`) and in the audit.

    \b
    cardflow dead-letters discard k3f --note "not a Korean word"
    """
    wanted = Wanted(ids or (), batch, service, reason, everything)
    at = datetime.now(UTC)

    async def act(js: JetStreamContext, letter: Letter) -> str:
        done = await discard(js, letter, note=note or "no reason given", at=at)
        return "discarded" if done else "changed_meanwhile"

    _act_on(wanted, "Discard", act, data=data, nats=nats, yes=yes, json=json)


Act = Callable[[JetStreamContext, Letter], Awaitable[str]]
"""What to do with one letter; returns a code for how it went."""


def _act_on(
    wanted: Wanted,
    verb: str,
    act: Act,
    *,
    data: Path | None,
    nats: str | None,
    yes: bool,
    json: bool,
) -> None:
    """Acts on all that are wanted and says how it went; exit 1 when one of them failed."""
    chosen = _warn_of_unreadable(_on_stream(lambda js: choose_letters(js, wanted), data, nats))
    if chosen and not wanted.ids and not yes and sys.stdin.isatty():
        typer.confirm(f"{verb} {len(chosen)} dead letters?", abort=True, err=True)
    outcomes = _on_stream(lambda js: _each(js, chosen, act), data, nats)
    if json:
        pairs = zip(chosen, outcomes, strict=True)
        print_json([{"id": letter.address, "outcome": outcome} for letter, outcome in pairs])
    else:
        for outcome in sorted(set(outcomes)):
            out.print(f"{outcome.replace('_', ' ')}: {outcomes.count(outcome)}", markup=False)
        if not chosen:
            out.print("No dead letters match.")
    if any(outcome.startswith("failed") for outcome in outcomes):
        fail("not all could be dealt with; the same command goes on with the rest", code=FAILED)


async def _each(js: JetStreamContext, letters: Sequence[Letter], act: Act) -> list[str]:
    """A few at once; a failure of one does not keep the others from their turn."""
    turn = asyncio.Semaphore(_AT_ONCE)
    with Progress(console=err, transient=True, disable=not err.is_terminal) as progress:
        task = progress.add_task("dead letters", total=len(letters))

        async def one(letter: Letter) -> str:
            async with turn:
                try:
                    outcome = await act(js, letter)
                except (Outage, *NATS_FAULTS) as error:
                    outcome = f"failed: {error or type(error).__name__}"
                progress.advance(task)
            return outcome

        return list(await asyncio.gather(*map(one, letters)))


def _warn_of_unreadable(letters: Letters) -> list[Letter]:
    if letters.unreadable:
        err.print(
            f"{len(letters.unreadable)} were written by a newer cardflow and left out: "
            f"{', '.join(letters.unreadable[:10])}",
            markup=False,
        )
    return letters.readable


def _on_stream(
    ask: Callable[[JetStreamContext], Awaitable[T]], data: Path | None, nats: str | None
) -> T:
    """One question to the pipeline; errors become messages."""
    try:
        with reported():
            return with_jetstream(nats_url(data, nats), ask)
    except LetterNotFound as error:
        fail(str(error), code=FAILED)
