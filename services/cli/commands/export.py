"""`cardflow export`: a deck file from the exporter's store."""

from __future__ import annotations

import shutil
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Final

import typer

from services.cli.common import FAILED, err, fail, out, run, store_path
from services.exporter.formats import FORMATS, format_of, write_deck
from services.exporter.store import Store
from services.exporter.stored import StoredCard
from services.kernel.errors import SettingsError, TransientError

cli = typer.Typer(add_completion=False)

_STANDARD_OUTPUT: Final = "-"
_NOT_TEXT: Final = frozenset({"apkg"})
_NAMES_SHOWN: Final = 20

IMPORTING: Final = {
    "apkg": "In Anki: File > Import, choose {path}. Importing it again updates the notes in "
    "place and keeps their schedule.",
    "tsv": "In Anki: File > Import, choose {path}. Its note type comes with any .apkg of "
    "cardflow: import one of those first.",
}
"""How to bring a format into Anki; the others are for programs and spreadsheets."""


@dataclass
class Written:
    """What a deck file holds."""

    cards: int = 0
    terms: set[tuple[str, str]] = field(default_factory=set)


@cli.command()
def export(
    *,
    batch: Annotated[
        str | None, typer.Option(help="The cards of one batch.", show_default=False)
    ] = None,
    deck: Annotated[
        str | None,
        typer.Option(help="The cards of a deck, over all batches.", show_default=False),
    ] = None,
    output: Annotated[
        str,
        typer.Option(
            "--output", "-o", metavar="PATH", help="The file; - is standard output (text only)."
        ),
    ],
    format_name: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help=f"One of {', '.join(FORMATS)}. (default: by the file's ending)",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder of `cardflow up`. (default: ./cardflow-data)", show_default=False
        ),
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option(help="The exporter's SQLite file, instead of --data.", show_default=False),
    ] = None,
) -> None:
    """Write a deck file from the store; works while the pipeline runs, and after it.

    Exit 1: there is no such batch or deck, or it has no cards yet.

    \b
    cardflow export --batch topik1 -o topik1.apkg
    cardflow export --deck "TOPIK 1" --format jsonl -o - | jq .front
    """
    if (batch is None) == (deck is None):
        fail("name what to write: either --batch B or --deck D")
    if data and store:
        fail("give either --data or --store, not both")
    try:
        written = run(
            _export(store or store_path(data), batch, deck, _format(format_name, output), output)
        )
    except (SettingsError, TransientError) as error:
        fail(str(error))
    _tell(written, _format(format_name, output), output)


def _format(name: str | None, output: str) -> str:
    """The format that was named, or that the ending asks for. Raises SettingsError."""
    if output == _STANDARD_OUTPUT and (name is None or name in _NOT_TEXT):
        texts = ", ".join(sorted(FORMATS.keys() - _NOT_TEXT))
        raise SettingsError(f"standard output takes text: give --format, one of {texts}")
    if name is not None and name not in FORMATS:
        raise SettingsError(f"unknown format {name!r}: expected one of {', '.join(FORMATS)}")
    return name or format_of(Path(output))


async def _export(
    path: Path, batch: str | None, deck: str | None, format_name: str, output: str
) -> Written:
    async with Store.open(path, read_only=True) as store:
        if batch is not None:
            _check_known("batch", batch, list(await store.batches()), path)
            cards = store.cards_of_batch(batch)
        else:
            _check_known("deck", deck or "", await store.decks(), path)
            cards = store.cards_of_deck(deck or "")
        return await write_counted(format_name, cards, output)


def _check_known(what: str, name: str, known: list[str], path: Path) -> None:
    if name not in known:
        shown = ", ".join(known[-_NAMES_SHOWN:]) or "none: no term has finished yet"
        more = "" if len(known) <= _NAMES_SHOWN else f" (and {len(known) - _NAMES_SHOWN} others)"
        fail(f"{path} has no cards of {what} {name!r}; it has: {shown}{more}", code=FAILED)


async def write_counted(
    format_name: str, cards: AsyncGenerator[StoredCard], output: str | Path
) -> Written:
    """Writes the deck to a file, or to standard output for `-`, and counts what is in it."""
    written = Written()
    counted = _counted(cards, written)
    if output != _STANDARD_OUTPUT:
        await write_deck(format_name, counted, Path(output))
        return written
    with TemporaryDirectory(prefix="cardflow-") as folder:
        path = Path(folder) / "deck"
        await write_deck(format_name, counted, path)
        with path.open("rb") as text:
            shutil.copyfileobj(text, sys.stdout.buffer)
        sys.stdout.flush()
    return written


async def _counted(
    cards: AsyncGenerator[StoredCard], written: Written
) -> AsyncIterator[StoredCard]:
    async with aclosing(cards) as stored:
        async for card in stored:
            written.cards += 1
            written.terms.add((card.deck, card.term_id))
            yield card


def _tell(written: Written, format_name: str, output: str) -> None:
    is_standard_output = output == _STANDARD_OUTPUT
    place = "standard output" if is_standard_output else output
    # Standard output may be the deck itself.
    console = err if is_standard_output else out
    console.print(
        f"wrote {written.cards:,} cards of {len(written.terms):,} terms to {place}", markup=False
    )
    if not is_standard_output and format_name in IMPORTING:
        console.print(IMPORTING[format_name].format(path=output), markup=False)
