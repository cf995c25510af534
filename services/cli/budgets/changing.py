"""Changing limits: what was asked for on the command line, and writing it down."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from services.cli.budgets.ledgers import Ledgers, batch_named, stage_named
from services.kernel.errors import SettingsError
from services.kernel.fleet.money.limits import BudgetLimits, day_of, limit_of
from services.kernel.fleet.money.spending import Account


@dataclass(frozen=True)
class Changes:
    """New limits; None takes one away. Empty: nothing is to change."""

    day: tuple[Decimal | None, ...] = ()
    stages: dict[str, Decimal | None] = field(default_factory=dict)
    batches: dict[str, Decimal | None] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.day or self.stages or self.batches)

    def applied(self, limits: BudgetLimits) -> BudgetLimits:
        stages = {**limits.stages, **self.stages}
        return BudgetLimits(
            day_usd=self.day[-1] if self.day else limits.day_usd,
            stages={name: usd for name, usd in stages.items() if usd is not None},
        )


def read_changes(
    day: str | None, stages: Sequence[str], batches: Sequence[str], unset: Sequence[str]
) -> Changes:
    """`5`, `stage1=5`, `monday=5`; to unset: `day`, `stage1`, `batch=monday`.

    Raises SettingsError for what can't be understood.
    """
    found = Changes(
        day=() if day is None else (limit_of(day, "--day"),),
        stages={stage_named(name): usd for name, usd in _pairs(stages, "--stage")},
        batches={batch_named(name): usd for name, usd in _pairs(batches, "--batch")},
    )
    unset_day = found.day
    for what in unset:
        kind, is_pair, name = what.partition("=")
        if what == "day":
            unset_day = (None,)
        elif kind == "batch" and is_pair:
            found.batches[batch_named(name)] = None
        else:
            found.stages[stage_named(what)] = None
    return Changes(unset_day, found.stages, found.batches)


def _pairs(texts: Sequence[str], option: str) -> list[tuple[str, Decimal]]:
    pairs = []
    for text in texts:
        name, is_pair, amount = text.partition("=")
        if not is_pair:
            example = "stage1=5" if option == "--stage" else "monday=5"
            raise SettingsError(f"{option} {text!r} is not NAME=USD; write for example {example}")
        pairs.append((name, limit_of(amount, option)))
    return pairs


async def change_limits(ledgers: Ledgers, changes: Changes) -> None:
    """In force on all replicas within seconds; twice is once."""
    if changes.day or changes.stages:
        await ledgers.limits().change(changes.applied)
    # What the accounts say of limits of days and stages is what was in force when last spent.
    if changes.day:
        await ledgers.account("day", day_of(ledgers.now)).change(_limited(changes.day[-1]))
    for name, usd in changes.stages.items():
        await ledgers.account("stage", name).change(_limited(usd))
    for name, usd in changes.batches.items():
        await ledgers.account("batch", name).change(_limited(usd))


def _limited(usd: Decimal | None) -> Callable[[Account], Account]:
    update = {"limit_usd": usd, "is_limit_of_submit": False}
    return lambda account: account.model_copy(update=update)
