"""Bars on standard error for work that is counted; nothing off a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)

from services.cli.common import err


@contextmanager
def counting_bar(what: str, total: int | None) -> Iterator[Callable[..., None]]:
    """Each call counts one of `total`, or as many as it is given; nothing off a terminal.

    `total` of None: it is unknown.
    """
    with Progress(console=err, disable=not err.is_terminal, transient=True) as progress:
        task = progress.add_task(what, total=total)

        def count(number: int = 1) -> None:
            progress.advance(task, number)

        yield count


@contextmanager
def figures_bar(what: str) -> Iterator[tuple[Callable[[int, int, str], None], Callable[[], float]]]:
    """What shows how many of how many are done with some figures, and a clock in seconds."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=err, disable=not err.is_terminal, transient=True) as progress:
        task = progress.add_task(what, total=None, figures="")

        def show(done: int, total: int, figures: str) -> None:
            progress.update(task, total=total, completed=done, figures=figures)

        yield show, progress.get_time
