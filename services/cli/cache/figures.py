"""What the cache comes to: by stage and model, in bytes, tokens and dollars."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from nats.js import JetStreamContext
from rich.table import Table

from services.cli.bar import counting_bar
from services.cli.cache.entries import Entry, Wanted, count_entries, read_entries
from services.cli.printable import printable

_OTHER_MODELS: Final = "other models"
_GROUPS_MAX: Final = 1_000
"""More models than anybody has; what is beyond is counted together."""


@dataclass
class Figures:
    """Sums over entries. `cost_usd` is what they cost, and what each further use of all saves."""

    entries: int = 0
    bytes: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: Decimal = Decimal(0)
    rebuilt: int = 0
    unreadable: int = 0
    oldest: datetime | None = None
    newest: datetime | None = None

    def add(self, entry: Entry) -> None:
        self.entries += 1
        self.bytes += entry.size
        kept_at = entry.kept_at
        self.oldest = min(self.oldest or kept_at, kept_at)
        self.newest = max(self.newest or kept_at, kept_at)
        if entry.completion is None:
            self.unreadable += 1
            return
        usage = entry.completion.usage
        self.prompt_tokens += usage.prompt_tokens
        self.completion_tokens += usage.completion_tokens
        self.cost_usd += usage.cost_usd
        self.rebuilt += entry.completion.rebuilt

    def as_json(self) -> dict[str, Any]:
        return {
            "entries": self.entries,
            "bytes": self.bytes,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "cost_usd": float(self.cost_usd),
            "rebuilt": self.rebuilt,
            "unreadable": self.unreadable,
            "oldest": self.oldest and self.oldest.isoformat(),
            "newest": self.newest and self.newest.isoformat(),
        }


@dataclass
class Census:
    """All figures together, and by (stage, model)."""

    total: Figures = field(default_factory=Figures)
    groups: dict[tuple[str, str], Figures] = field(default_factory=dict)

    def add(self, entry: Entry) -> None:
        self.total.add(entry)
        key = (entry.stage, entry.model)
        if key not in self.groups and len(self.groups) >= _GROUPS_MAX:
            key = (entry.stage, _OTHER_MODELS)
        self.groups.setdefault(key, Figures()).add(entry)

    def as_json(self) -> dict[str, Any]:
        groups = [
            {"stage": stage, "model": model, **figures.as_json()}
            for (stage, model), figures in sorted(self.groups.items())
        ]
        return {**self.total.as_json(), "groups": groups}

    def table(self) -> Table:
        table = Table(box=None, pad_edge=False)
        names = ("stage", "model", "entries", "MiB", "tokens in", "tokens out", "cost", "newest")
        for name in names:
            left = name in ("stage", "model", "newest")
            table.add_column(name, justify="left" if left else "right", overflow="fold")
        for (stage, model), figures in sorted(self.groups.items()):
            table.add_row(stage, printable(model, 60), *_cells(figures))
        if len(self.groups) > 1:
            table.add_row("all", "", *_cells(self.total))
        return table


async def take_census(js: JetStreamContext, wanted: Wanted) -> Census:
    """Of all that are wanted."""
    census = Census()
    with counting_bar("reading", await count_entries(js)) as on_read:
        async for entry in read_entries(js, wanted, on_read):
            census.add(entry)
    return census


def _cells(figures: Figures) -> tuple[str, ...]:
    return (
        f"{figures.entries:,}",
        f"{figures.bytes / 2**20:,.1f}",
        f"{figures.prompt_tokens:,}",
        f"{figures.completion_tokens:,}",
        f"${figures.cost_usd:.4f}",
        figures.newest.strftime("%Y-%m-%d %H:%M") if figures.newest else "",
    )
