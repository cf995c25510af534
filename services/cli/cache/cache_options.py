"""How a command line chooses entries of the cache; shared by the commands that deal with them."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer

from services.cli.cache.entries import STAGES, UNKNOWN
from services.cli.durations import read_duration

StageOption = Annotated[
    str | None,
    typer.Option(
        "--stage",
        help=f"Only what {' or '.join(STAGES.values())} asked for; {UNKNOWN}: kept by an earlier "
        "release, which did not say.",
        show_default=False,
    ),
]
ModelOption = Annotated[
    str | None,
    typer.Option("--model", help="Only what this model served.", show_default=False),
]
VersionOption = Annotated[
    str | None,
    typer.Option(
        "--prompt-version", help="Only answers to this version of a prompt.", show_default=False
    ),
]
OlderOption = Annotated[
    timedelta | None,
    typer.Option(
        "--older-than",
        help="Only what was kept longer ago than this: 90s, 30m, 12h, 2d.",
        parser=read_duration,
        metavar="AGE",
        show_default=False,
    ),
]
NewerOption = Annotated[
    timedelta | None,
    typer.Option(
        "--newer-than",
        help="Only what was kept since then.",
        parser=read_duration,
        metavar="AGE",
        show_default=False,
    ),
]
