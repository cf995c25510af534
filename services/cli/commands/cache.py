"""`cardflow cache`: the completions that were paid for, as things to look at, move and empty."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Final

import typer
from nats.js import JetStreamContext

from services.cli.bar import counting_bar
from services.cli.cache.cache_options import (
    ModelOption,
    NewerOption,
    OlderOption,
    StageOption,
    VersionOption,
)
from services.cli.cache.entries import Wanted, count_entries, read_entries
from services.cli.cache.entries_shown import show_each
from services.cli.cache.figures import Census, take_census
from services.cli.cache.files import STANDARD, Imported, export_entries, import_entries, size_of
from services.cli.cache.purging import Purged, look, purge
from services.cli.cache.rebuilding import Warmed, warm
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
from services.cli.letters.letter_options import YesOption
from services.cli.printable import printable
from services.cli.session import reported, with_jetstream
from services.kernel import topology

_NONE: Final = "The cache holds no such completion."

cli = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="The completions that were paid for, kept for good and shared by all batches.\n\n"
    "An entry of the cache answers one question: the same prompt, model, parameters and term. An "
    "answer that no longer passes a stage's checks counts as none, wherever it is from.",
)


@cli.command()
def stats(
    *,
    stage: StageOption = None,
    model: ModelOption = None,
    prompt_version: VersionOption = None,
    older_than: OlderOption = None,
    newer_than: NewerOption = None,
    data: DataOption = None,
    nats: NatsOption = None,
    json: JsonOption = False,
) -> None:
    """How many there are, by stage and model, and what they cost: each use again saves that.

    \b
    cardflow cache stats
    cardflow cache stats --newer-than 7d --json
    """
    url, wanted = _asked(data, nats, stage, model, prompt_version, older_than, newer_than)
    census = with_jetstream(url, lambda js: take_census(js, wanted))
    if json:
        print_json(census.as_json())
    elif not census.total.entries:
        out.print(_NONE)
    else:
        out.print(census.table())


@cli.command(name="list")
def list_command(
    *,
    stage: StageOption = None,
    model: ModelOption = None,
    prompt_version: VersionOption = None,
    older_than: OlderOption = None,
    newer_than: NewerOption = None,
    limit: Annotated[
        int | None, typer.Option(help="At most so many. (default: all)", min=1, show_default=False)
    ] = None,
    data: DataOption = None,
    nats: NatsOption = None,
    json: JsonOption = False,
) -> None:
    """One line for each entry, oldest first, as it is read; --json: one object a line.

    \b
    cardflow cache list --stage stage2 --older-than 30d | less
    cardflow cache list --json | jq -r .fingerprint
    """
    url, wanted = _asked(data, nats, stage, model, prompt_version, older_than, newer_than)
    shown = with_jetstream(url, lambda js: show_each(js, wanted, limit, json=json))
    if not shown and not json:
        out.print(_NONE)


@cli.command(name="warm")
def warm_command(
    *,
    batch: Annotated[
        str | None, typer.Option("--batch", help="Only from this batch.", show_default=False)
    ] = None,
    stage: StageOption = None,
    data: DataOption = None,
    nats: NatsOption = None,
    json: JsonOption = False,
) -> None:
    """Fill the cache from the finished streams: a machine that lost its cache pays nothing again.

    Each analysis and each set of cards on ANALYSES and CARDS is turned back into the completion
    that it was read from, and kept if today's checks read the same result out of it. What the cache
    has stays. Cards that are made of such an entry say so (`rebuilt` in their provenance). Exit 1:
    not all could be kept.

    \b
    cardflow cache warm
    cardflow cache warm --batch topik1 --stage stage1
    """
    url, _ = _asked(data, nats, stage)
    if batch is not None and not topology.is_batch_name(batch):
        fail(f"{batch!r} is no batch name; see `cardflow status`")
    warmed = with_jetstream(url, lambda js: _warm(js, batch, stage))
    if json:
        print_json(warmed.as_json())
    else:
        out.print(f"{warmed.kept:,} kept, {warmed.present:,} were there already.")
        for subject, reason in warmed.unfit:
            err.print(f"{subject}: {reason}", markup=False)
    if warmed.refused or warmed.unreadable:
        fail(
            f"{warmed.refused:,} were not kept, {warmed.unreadable:,} events could not be read; "
            "their terms would be asked for again",
            code=FAILED,
        )


@cli.command(name="purge")
def purge_command(
    *,
    stage: StageOption = None,
    model: ModelOption = None,
    prompt_version: VersionOption = None,
    older_than: OlderOption = None,
    everything: Annotated[bool, typer.Option("--all", help="The whole cache.")] = False,
    yes: YesOption = False,
    data: DataOption = None,
    nats: NatsOption = None,
    json: JsonOption = False,
) -> None:
    """Take completions out: who needs them next asks for them, and pays for them, again.

    Calls under way are not disturbed, and entries that somebody is at work on at this moment stay.
    A term that was answered before and whose process died before it was published pays again. The
    purge is on record for `cardflow audit`. Off a terminal --yes is needed.

    \b
    cardflow cache purge --stage stage2 --prompt-version cards-1
    cardflow cache purge --older-than 365d --yes
    """
    url, wanted = _asked(data, nats, stage, model, prompt_version, older_than)
    if wanted.is_everything != everything:
        fail(
            "choose what to take out with --stage, --model, --prompt-version or --older-than, or "
            "all of it with --all"
        )
    census, up_to = with_jetstream(url, lambda js: look(js, wanted))
    if census.total.entries and not yes:
        _confirm(census)
    purged = with_jetstream(url, lambda js: _purge(js, wanted, census, up_to))
    if json:
        cost_usd = float(census.total.cost_usd)
        print_json({**purged.as_json(), "matched": census.total.entries, "cost_usd": cost_usd})
        return
    out.print(f"{purged.removed:,} taken out.")
    if purged.claimed:
        out.print(f"{purged.claimed:,} stay: somebody is at work on them. Try again in a minute.")


@cli.command(name="export")
def export_command(
    file: Annotated[str, typer.Argument(help="JSON Lines; .gz is packed; - is standard output.")],
    *,
    stage: StageOption = None,
    model: ModelOption = None,
    prompt_version: VersionOption = None,
    older_than: OlderOption = None,
    newer_than: NewerOption = None,
    data: DataOption = None,
    nats: NatsOption = None,
    json: JsonOption = False,
) -> None:
    """Write entries to a file for another machine. It appears whole or not at all.

    \b
    cardflow cache export cache.jsonl.gz
    cardflow cache export - --stage stage1 | ssh other cardflow cache import -
    """
    url, wanted = _asked(data, nats, stage, model, prompt_version, older_than, newer_than)
    count = with_jetstream(url, lambda js: _export(js, wanted, file))
    if json and file != STANDARD:
        print_json({"exported": count, "file": file})
    else:
        # Standard output may be the file itself.
        console = err if file == STANDARD else out
        console.print(f"wrote {count:,} completions to {file}", markup=False)


@cli.command(name="import")
def import_command(
    file: Annotated[str, typer.Argument(help="What `export` wrote; - is standard input.")],
    *,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace entries that are there.")
    ] = False,
    data: DataOption = None,
    nats: NatsOption = None,
    json: JsonOption = False,
) -> None:
    """Put the entries of a file into the cache. Twice is once.

    Each line is looked at by itself; one that is no entry is refused with its number and a reason,
    and the others go in. Whether an answer is fit is judged by the stage that reads it: an unfit
    one counts as none. Exit 1: lines were refused.

    \b
    cardflow cache import cache.jsonl.gz
    """
    url, _ = _asked(data, nats)
    imported = with_jetstream(url, lambda js: _import(js, file, overwrite=overwrite))
    if json:
        print_json(imported.as_json())
    else:
        replaced = f", {imported.overwritten:,} replaced" if overwrite else ""
        out.print(f"{imported.kept:,} kept, {imported.present:,} were there already{replaced}.")
        for line, reason in imported.refusals:
            err.print(f"line {line}: {printable(reason)}", markup=False)
    if imported.refused:
        fail(f"{imported.refused:,} lines were refused", code=FAILED)


def _asked(
    data: Path | None,
    nats: str | None,
    stage: str | None = None,
    model: str | None = None,
    prompt_version: str | None = None,
    older_than: timedelta | None = None,
    newer_than: timedelta | None = None,
) -> tuple[str, Wanted]:
    with reported():
        wanted = Wanted(stage, model, prompt_version, older_than, newer_than)
        wanted.check()
        return nats_url(data, nats), wanted


async def _warm(js: JetStreamContext, batch: str | None, stage: str | None) -> Warmed:
    with counting_bar("reading", None) as on_read:
        return await warm(js, batch, stage, on_read)


def _confirm(census: Census) -> None:
    total = census.total
    if not sys.stdin.isatty():
        fail(
            f"this would take out {total.entries:,} completions, which cost "
            f"${total.cost_usd:.4f}; say so with --yes"
        )
    err.print(census.table())
    question = f"Take out {total.entries:,} completions, which cost ${total.cost_usd:.4f}?"
    typer.confirm(question, abort=True, err=True)


async def _purge(js: JetStreamContext, wanted: Wanted, census: Census, up_to: int) -> Purged:
    if not census.total.entries:
        return Purged()
    with counting_bar("taking out", census.total.entries) as on_removed:
        return await purge(js, wanted, up_to=up_to, on_removed=on_removed)


async def _export(js: JetStreamContext, wanted: Wanted, file: str) -> int:
    with counting_bar("exporting", await count_entries(js)) as on_read:
        return await export_entries(read_entries(js, wanted, on_read), file)


async def _import(js: JetStreamContext, file: str, *, overwrite: bool) -> Imported:
    with counting_bar("importing", size_of(file)) as on_read:
        return await import_entries(js, file, overwrite=overwrite, on_read=on_read)
