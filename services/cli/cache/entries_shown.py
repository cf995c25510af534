"""Entries of the cache, one line each, shown as they are read."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any, Final

import typer
from nats.js import JetStreamContext

from services.cli.cache.entries import Entry, Wanted, read_entries
from services.cli.common import print_json
from services.cli.printable import printable

_FINGERPRINT_SHOWN: Final = 16
"""Enough to tell a million of them apart; --json has all of it."""


async def show_each(js: JetStreamContext, wanted: Wanted, limit: int | None, *, json: bool) -> int:
    """Prints the wanted ones, at most `limit`; how many there were."""
    shown = 0
    async with aclosing(read_entries(js, wanted)) as entries:
        async for entry in entries:
            if json:
                print_json(as_json(entry))
            else:
                typer.echo(as_line(entry))
            shown += 1
            if shown == limit:
                break
    return shown


def as_json(entry: Entry) -> dict[str, Any]:
    completion = entry.completion
    return {
        "fingerprint": entry.fingerprint,
        "stage": entry.stage,
        "prompt_version": entry.prompt_version,
        "model": entry.model,
        "provider": completion.provider if completion else None,
        "kept_at": entry.kept_at.isoformat(),
        "bytes": entry.size,
        "rebuilt": bool(completion and completion.rebuilt),
        "readable": completion is not None,
        "usage": completion.usage.model_dump(mode="json") if completion else None,
    }


def as_line(entry: Entry) -> str:
    completion = entry.completion
    cost = f"${completion.usage.cost_usd:.6f}" if completion else "unreadable"
    mark = "  rebuilt" if completion and completion.rebuilt else ""
    return (
        f"{entry.fingerprint[:_FINGERPRINT_SHOWN]}  {entry.kept_at:%Y-%m-%d %H:%M}  "
        f"{entry.stage:<7}  {printable(entry.prompt_version, 20):<12}  {cost:>10}  "
        f"{entry.size:>7,} B  {printable(entry.model, 60)}{mark}"
    )
