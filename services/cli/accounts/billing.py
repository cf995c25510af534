"""Calls and money added up, and held against what the provider saw and charged. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final, NamedTuple

from services.cli.accounts.accounting import ROUNDING_USD, Problem
from services.kernel.contracts.attempt import AttemptHistory

_NOTHING: Final = Decimal(0)


@dataclass(frozen=True)
class Tally:
    """Attempts that asked a provider, added up.

    `uncertain`: begun and never settled, or cut off; the provider may have seen and billed them.
    `unbilled` failed for certain, some of them before they reached the provider. `throttled` were
    turned away: the provider saw them, and they count as no call. `repairs` are the calls that
    asked once more for an unfit reply, `repair_cost_usd` is what they cost: parts of the whole.
    """

    billed: int = 0
    unbilled: int = 0
    uncertain: int = 0
    throttled: int = 0
    cost_usd: Decimal = _NOTHING
    repairs: int = 0
    repair_cost_usd: Decimal = _NOTHING
    first_at: datetime | None = None

    @property
    def calls(self) -> int:
        return self.billed + self.unbilled + self.uncertain


def tally(histories: Iterable[AttemptHistory]) -> Tally:
    asked = [a for h in histories for a in h.attempts if a.fingerprint is not None]
    settled = ("billed", "unbilled", "throttled")
    repairs = [a for a in asked if a.is_repair and a.outcome != "throttled"]
    return Tally(
        billed=sum(a.outcome == "billed" for a in asked),
        unbilled=sum(a.outcome == "unbilled" for a in asked),
        uncertain=sum(a.outcome not in settled for a in asked),
        throttled=sum(a.times for a in asked if a.outcome == "throttled"),
        cost_usd=sum((a.cost_usd for a in asked), _NOTHING),
        repairs=len(repairs),
        repair_cost_usd=sum((a.cost_usd for a in repairs), _NOTHING),
        first_at=min((a.started_at for a in asked), default=None),
    )


class Seen(NamedTuple):
    """What the provider says that it saw, all calls, and charged."""

    calls: int
    charged_usd: Decimal


def provider_problems(before: Seen, recorded: Tally, after: Seen) -> list[Problem]:
    """Compares the provider's books, looked at before and after ours, so that work may go on."""
    least = recorded.billed + recorded.throttled
    most = recorded.calls + recorded.throttled
    problems = []
    if after.calls < least or before.calls > most:
        problems.append(
            Problem(
                "provider",
                f"the provider saw {after.calls} calls, expected {_range(least, most)}: "
                f"{recorded.calls} recorded and {recorded.throttled} turned away, of which "
                f"{recorded.uncertain} uncertain and {recorded.unbilled} unbilled may not "
                "have reached it",
            )
        )
    missing_usd = recorded.cost_usd - after.charged_usd
    unrecorded_usd = before.charged_usd - recorded.cost_usd if not recorded.uncertain else _NOTHING
    if max(missing_usd, unrecorded_usd) > ROUNDING_USD:
        problems.append(
            Problem(
                "provider",
                f"the provider charged {after.charged_usd} USD, recorded are {recorded.cost_usd} "
                f"USD and {recorded.uncertain} uncertain calls",
            )
        )
    return problems


def _range(least: int, most: int) -> str:
    return str(least) if least == most else f"{least} to {most}"
