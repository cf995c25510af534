"""How a command line names dead letters; shared by the commands that deal with them."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Final

import typer

from services.cli.durations import read_duration
from services.kernel import topology

DEFAULT_RATE: Final = 50.0
"""Letters sent again in a second: 1,000 in 20 s, beside whatever else the pipeline has to do."""

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
OlderOption = Annotated[
    timedelta | None,
    typer.Option(
        "--older-than",
        help="Only those given up on longer ago than this: 90s, 30m, 12h, 2d.",
        parser=read_duration,
        metavar="AGE",
        show_default=False,
    ),
]
NewerOption = Annotated[
    timedelta | None,
    typer.Option(
        "--newer-than",
        help="Only those given up on since then.",
        parser=read_duration,
        metavar="AGE",
        show_default=False,
    ),
]
AllOption = Annotated[bool, typer.Option("--all", help="All that wait.")]
CancelledOption = Annotated[
    bool, typer.Option("--cancelled", help="The records of cancelled terms instead.")
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")]
RateOption = Annotated[
    float, typer.Option("--rate", help="Send so many again in a second at most.", min=0.1)
]
