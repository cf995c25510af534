"""Dealing with many dead letters: a few at once, each answered, none in the way of the others."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from nats.js import JetStreamContext
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from services.cli.common import err
from services.cli.letters.letters import Letter
from services.cli.letters.pacing import Pace
from services.kernel.errors import Outage
from services.kernel.nats_faults import NATS_FAULTS

_AT_ONCE: Final = 20
"""Letters worked on at once: quick, and gentle to a pipeline that is at work."""
FAILURE: Final = "failed"
"""How the outcome begins of a letter that could not be dealt with."""

Act = Callable[[JetStreamContext, Letter], Awaitable[str]]
"""What to do with one letter; returns a code for how it went."""


async def act_on_each(
    js: JetStreamContext, letters: Sequence[Letter], act: Act, *, per_second: float | None = None
) -> list[str]:
    """The outcomes in the order of the letters; at most `per_second` are begun in a second."""
    at_work = asyncio.Semaphore(_AT_ONCE)
    pace = Pace(per_second, clock=asyncio.get_running_loop().time) if per_second else None
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        task = progress.add_task("dead letters", total=len(letters))

        async def one(letter: Letter) -> str:
            async with at_work:
                if pace is not None:
                    await pace.turn()
                try:
                    outcome = await act(js, letter)
                except (Outage, *NATS_FAULTS) as error:
                    outcome = f"{FAILURE}: {error or type(error).__name__}"
                progress.advance(task)
            return outcome

        return list(await asyncio.gather(*map(one, letters)))
