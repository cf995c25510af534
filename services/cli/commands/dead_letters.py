"""`cardflow dead-letters`: look at what was given up on, send it again, or decide against it."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, TypeVar

import click
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
from services.cli.letters.acting import FAILURE, Act, act_on_each
from services.cli.letters.editing import PayloadRefused, replay_edited, text_to_edit
from services.cli.letters.letter_options import (
    DEFAULT_RATE,
    AllOption,
    BatchOption,
    CancelledOption,
    IdsArgument,
    NewerOption,
    OlderOption,
    RateOption,
    ReasonOption,
    ServiceOption,
    YesOption,
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

T = TypeVar("T")

cli = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Messages that were given up on: list, show, replay and discard them.\n\n"
    "An ID may be shortened as long as it is clear: `cardflow dead-letters show k3f`. Where the "
    "same term died in two batches, name it in full: `stage1/monday/k3f9…`.",
)


@cli.command(name="list")
def list_command(
    *,
    batch: BatchOption = None,
    service: ServiceOption = None,
    reason: ReasonOption = None,
    older_than: OlderOption = None,
    newer_than: NewerOption = None,
    everything: Annotated[bool, typer.Option("--all", help="The discarded ones, too.")] = False,
    cancelled: CancelledOption = False,
    data: DataOption = None,
    nats: NatsOption = None,
    json: JsonOption = False,
) -> None:
    """What was given up on and still waits for somebody to decide, oldest first.

    \b
    cardflow dead-letters list --batch monday --reason attempts_used_up
    cardflow dead-letters list --newer-than 90m
    """
    wanted = Wanted((), batch, service, reason, older_than, newer_than, cancelled=cancelled)
    read = _on_stream(lambda js: read_letters(js, wanted), data, nats)
    letters = [x for x in _warn_of_unreadable(read) if everything or not x.is_discarded]
    if json:
        print_json([as_row(letter) for letter in letters])
    elif not letters:
        out.print("No cancelled terms." if cancelled else "No dead letters.")
    else:
        out.print(table_of(letters))
        if not cancelled:
            out.print("Whole story: cardflow dead-letters show ID · again: replay ID")


@cli.command()
def show(
    id_: Annotated[str, typer.Argument(metavar="ID", help="An id, or its beginning.")],
    *,
    cancelled: CancelledOption = False,
    data: DataOption = None,
    nats: NatsOption = None,
    json: JsonOption = False,
) -> None:
    """All that is known of one: reason, causes, each attempt with its cost, the message itself.

    \b
    cardflow dead-letters show stage1/monday/k3f
    """
    letter = _on_stream(lambda js: find_letter(js, id_, cancelled=cancelled), data, nats)
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
    older_than: OlderOption = None,
    newer_than: NewerOption = None,
    everything: AllOption = False,
    payload: Annotated[
        typer.FileBinaryRead | None,
        typer.Option(
            help="Send the content of this file instead of the original message; - is standard "
            "input.",
            metavar="FILE",
            show_default=False,
        ),
    ] = None,
    edit: Annotated[bool, typer.Option("--edit", help="Edit the message in $EDITOR.")] = False,
    rate: RateOption = DEFAULT_RATE,
    yes: YesOption = False,
    data: DataOption = None,
    nats: NatsOption = None,
    json: JsonOption = False,
) -> None:
    """Send the original messages again, with a new count of attempts. Twice is once.

    Filters leave discarded letters alone; naming one by its ID replays it. With --payload or
    --edit one message is corrected first: it has to be the same event of the same term. A refused
    submission is replaced by the corrected one, which is a term of its own; exit 1 when that one
    would be refused, too.

    \b
    cardflow dead-letters replay k3f
    cardflow dead-letters replay --batch monday --reason attempts_used_up --yes
    cardflow dead-letters replay --older-than 2d --rate 5 --yes
    cardflow dead-letters replay k3f --edit
    echo '{"term": "책"}' | cardflow dead-letters replay k3f --payload -
    """
    place = _Place(data, nats, json=json)
    wanted = Wanted(ids or (), batch, service, reason, older_than, newer_than, everything)
    if payload is None and not edit:
        _act_on(wanted, "Replay", replay, place, yes=yes, rate=rate)
        return
    if payload is not None and edit:
        fail("give either --payload or --edit, not both")
    if len(wanted.ids) != 1:
        fail("--payload and --edit are for one dead letter: name it by its ID")
    edited_by = _in_editor if payload is None else payload.read()
    _replay_edited(wanted, edited_by, place)


@cli.command(name="discard")
def discard_command(
    ids: IdsArgument = None,
    *,
    note: Annotated[str, typer.Option("--note", help="Why; kept with the letter.")] = "",
    batch: BatchOption = None,
    service: ServiceOption = None,
    reason: ReasonOption = None,
    older_than: OlderOption = None,
    newer_than: NewerOption = None,
    everything: AllOption = False,
    yes: YesOption = False,
    data: DataOption = None,
    nats: NatsOption = None,
    json: JsonOption = False,
) -> None:
    """Decide against sending them again. They stay on record (`list --all`) and in the audit.

    \b
    cardflow dead-letters discard k3f --note "not a Korean word"
    """
    wanted = Wanted(ids or (), batch, service, reason, older_than, newer_than, everything)
    at = datetime.now(UTC)

    async def act(js: JetStreamContext, letter: Letter) -> str:
        done = await discard(js, letter, note=note or "no reason given", at=at)
        return "discarded" if done else "changed_meanwhile"

    _act_on(wanted, "Discard", act, _Place(data, nats, json=json), yes=yes)


@dataclass(frozen=True)
class _Place:
    """Where the letters are, and how the outcome is wanted."""

    data: Path | None
    nats: str | None
    json: bool


def _act_on(
    wanted: Wanted, verb: str, act: Act, place: _Place, *, yes: bool, rate: float | None = None
) -> None:
    """Acts on all that are wanted and says how it went; exit 1 when one of them failed."""
    data, nats = place.data, place.nats
    chosen = _warn_of_unreadable(_on_stream(lambda js: choose_letters(js, wanted), data, nats))
    if chosen and not wanted.ids and not yes and sys.stdin.isatty():
        typer.confirm(f"{verb} {len(chosen)} dead letters?", abort=True, err=True)
    outcomes = _on_stream(lambda js: act_on_each(js, chosen, act, per_second=rate), data, nats)
    _report(chosen, outcomes, json=place.json)


def _replay_edited(
    wanted: Wanted, edited_by: bytes | Callable[[Letter], bytes], place: _Place
) -> None:
    data, nats = place.data, place.nats
    [letter] = _on_stream(lambda js: choose_letters(js, wanted), data, nats).readable
    at = datetime.now(UTC)

    async def act(js: JetStreamContext, letter: Letter) -> str:
        return await replay_edited(js, letter, payload, at=at)

    try:
        payload = edited_by if isinstance(edited_by, bytes) else edited_by(letter)
        outcomes = _on_stream(lambda js: act_on_each(js, [letter], act), data, nats)
    except PayloadRefused as refusal:
        fail(f"nothing was sent: {refusal}", code=FAILED)
    _report([letter], outcomes, json=place.json)


def _in_editor(letter: Letter) -> bytes:
    """What a person makes of the payload; ends the command when nothing was saved."""
    text = text_to_edit(letter.record.original_payload)
    edited = click.edit(text, extension=".json")
    if edited is None or edited == text:
        fail("nothing was changed, so nothing was sent", code=FAILED)
    return edited.encode()


def _report(letters: list[Letter], outcomes: list[str], *, json: bool) -> None:
    if json:
        pairs = zip(letters, outcomes, strict=True)
        print_json([{"id": letter.address, "outcome": outcome} for letter, outcome in pairs])
    else:
        for outcome in sorted(set(outcomes)):
            out.print(f"{outcome.replace('_', ' ')}: {outcomes.count(outcome)}", markup=False)
        if not letters:
            out.print("No dead letters match.")
    if any(outcome.startswith(FAILURE) for outcome in outcomes):
        fail("not all could be dealt with; the same command goes on with the rest", code=FAILED)


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
