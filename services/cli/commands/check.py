"""`cardflow check`: what ingest would say of each row, without publishing any."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

import typer
from rich.markup import escape
from rich.table import Table

from services.cli.common import FAILED, JsonOption, out, print_json
from services.cli.printable import printable
from services.cli.session import reported
from services.cli.submitting.payloads import (
    Payload,
    Unsendable,
    read_payloads,
    reason_of,
    understood,
)
from services.ingest.decode import combined_hint
from services.kernel.contracts.term import Priority
from services.kernel.errors import TermRefused

cli = typer.Typer(add_completion=False)

_ALL_SHOWN_MAX: Final = 100
"""Rows of a table that is still read; of longer lists only the rejected rows are shown."""
_REJECTED_SHOWN_MAX: Final = 1_000


@dataclass(frozen=True, slots=True)
class Verdict:
    """One row. `input` is the term as written, or the raw row where none was found.

    `reason` is None for an accepted row, otherwise `field: code: detail`, and `priority` None.
    """

    source: str
    line: int
    input: str
    normal: str | None = None
    homonym: int | None = None
    hint: str | None = None
    term_id: str | None = None
    priority: Priority | None = None
    reason: str | None = None

    @property
    def is_accepted(self) -> bool:
        return self.reason is None

    def as_json(self) -> dict[str, Any]:
        return {
            "line": self.line,
            "input": self.input,
            "normal": self.normal,
            "homonym": self.homonym,
            "hint": self.hint,
            "priority": self.priority,
            "verdict": "accept" if self.is_accepted else "reject",
            "reason": self.reason,
        }


@dataclass
class Totals:
    """What a list came to; duplicates are the same term again."""

    rows: int = 0
    rejected: int = 0
    terms: set[str] = field(default_factory=set)

    def add(self, verdict: Verdict) -> None:
        self.rows += 1
        if verdict.term_id is None:
            self.rejected += 1
        else:
            self.terms.add(verdict.term_id)

    def __str__(self) -> str:
        accepted = self.rows - self.rejected
        text = f"{self.rows:,} rows: {accepted:,} accepted, {self.rejected:,} rejected."
        if duplicates := accepted - len(self.terms):
            text += f" {len(self.terms):,} different terms; {duplicates:,} stand there again."
        return text


@cli.command()
def check(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE...", help="CSV, TSV, XLSX, JSONL or plain lists; - is standard input."
        ),
    ],
    *,
    json: JsonOption = False,
) -> None:
    """Read and validate terms as ingest does; nothing is published, no server is needed.

    With --json one object a row: line, input, normal, homonym, hint, priority, verdict ("accept"
    or "reject"), reason; and file, if several were given. Exit 1: a row is rejected. Exit 2: a
    file can't be read.

    \b
    cardflow check words.csv
    cardflow check words.csv --json | grep '"reject"'
    """
    totals = Totals()
    with reported():
        if json:
            _print_lines(verdicts(files), totals, several=len(files) > 1)
        else:
            _print_table(verdicts(files), totals)
    if totals.rejected:
        raise typer.Exit(FAILED)


def verdicts(sources: list[str]) -> Iterator[Verdict]:
    """What ingest says of each row, in order. Raises SettingsError for a bad source."""
    for entry in read_payloads(sources):
        if isinstance(entry, Unsendable):
            yield Verdict(entry.source, entry.line, entry.input, reason=f"row: {entry.reason}")
        else:
            yield _verdict(entry)


def _verdict(payload: Payload) -> Verdict:
    try:
        understanding = understood(payload)
    except TermRefused as refusal:
        reason = reason_of(refusal)
        return Verdict(payload.source, payload.line, payload.term, reason=reason)
    form = understanding.form
    return Verdict(
        payload.source,
        payload.line,
        understanding.submitted.term,
        normal=form.text,
        homonym=form.homonym,
        hint=combined_hint(understanding.submitted, form),
        term_id=understanding.term_id,
        priority=understanding.submitted.priority,
    )


def _print_lines(rows: Iterator[Verdict], totals: Totals, *, several: bool) -> None:
    for verdict in rows:
        totals.add(verdict)
        source = {"file": verdict.source} if several else {}
        print_json({**source, **verdict.as_json()})


def _print_table(rows: Iterator[Verdict], totals: Totals) -> None:
    first: list[Verdict] = []
    rejected: list[Verdict] = []
    for verdict in rows:
        totals.add(verdict)
        if len(first) < _ALL_SHOWN_MAX:
            first.append(verdict)
        if not verdict.is_accepted and len(rejected) < _REJECTED_SHOWN_MAX:
            rejected.append(verdict)
    shown = first if totals.rows <= _ALL_SHOWN_MAX else rejected
    if shown:
        out.print(_table(shown))
    if len(shown) < totals.rows:
        which = "the rejected rows" if totals.rejected == len(shown) else "the first rejected rows"
        out.print(f"Of so many rows only {which} are shown; --json prints all.")
    out.print(str(totals))


def _table(shown: list[Verdict]) -> Table:
    columns = ["file", "line", "input", "normal form", "hint", "priority", "verdict"]
    if len({verdict.source for verdict in shown}) == 1:
        columns.remove("file")
    if all(verdict.priority in (None, "normal") for verdict in shown):
        columns.remove("priority")
    table = Table(box=None, pad_edge=False)
    for name in columns:
        table.add_column(name, overflow="fold", justify="right" if name == "line" else "left")
    for verdict in shown:
        cells = _cells(verdict)
        table.add_row(
            *(escape(printable(cells[name], 300)) for name in columns),
            style=None if verdict.is_accepted else "red",
        )
    return table


def _cells(verdict: Verdict) -> dict[str, str]:
    """By the name of the column."""
    return {
        "file": verdict.source,
        "line": str(verdict.line),
        "input": printable(verdict.input.strip(), 60),
        "normal form": (verdict.normal or "")
        + (f" ({verdict.homonym})" if verdict.homonym else ""),
        "hint": verdict.hint or "",
        "priority": verdict.priority or "",
        "verdict": "accept" if verdict.is_accepted else f"reject: {verdict.reason}",
    }
