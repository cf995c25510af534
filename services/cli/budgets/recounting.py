"""The true sums of the accounts, from the ledger of calls. Only while nothing is being paid."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC
from decimal import Decimal
from typing import Final

from services.cli.accounts.accounting import STAGES, AttemptsKey
from services.cli.accounts.evidence import read_attempts
from services.cli.budgets.ledgers import Budget, Ledgers
from services.kernel.contracts.attempt import Attempt, AttemptHistory
from services.kernel.errors import SettingsError
from services.kernel.fleet.money.spending import Account, silent

_UNKNOWN: Final = ("started", "uncertain", "failed")


@dataclass
class Sums:
    """What the ledger knows of one account: money, and calls whose bill nobody knows."""

    settled: Decimal = Decimal(0)
    unknown: int = 0

    def add(self, attempt: Attempt) -> None:
        self.settled += attempt.cost_usd
        is_known = attempt.outcome not in _UNKNOWN or attempt.generation_id is not None
        self.unknown += not is_known


AccountName = tuple[str, str]
"""Kind and name."""


def sums_of(attempts: Mapping[AttemptsKey, AttemptHistory]) -> dict[AccountName, Sums]:
    """The sums of every account that calls on record belong to."""
    sums: defaultdict[AccountName, Sums] = defaultdict(Sums)
    for key, history in attempts.items():
        if key.service not in STAGES:
            continue
        for attempt in history.attempts:
            if attempt.fingerprint is not None:
                day = attempt.started_at.astimezone(UTC).strftime("%Y-%m-%d")
                for name in (("day", day), ("stage", key.service), ("batch", key.batch)):
                    sums[name].add(attempt)
    return dict(sums)


def recounted(sums: Sums) -> Callable[[Account], Account]:
    """The account with what the ledger knows. Never less settled than before: it forgets in time.

    Calls of unknown cost count as the dearest so far, and all of them together not more than was
    set aside.
    """

    def change(account: Account) -> Account:
        settled = max(account.all_settled_usd, sums.settled)
        uncertain = min(account.total_usd - settled, sums.unknown * account.dearest_usd)
        update = {
            "settled_usd": settled,
            "uncertain_usd": max(uncertain, Decimal(0)),
            "shares": {},
        }
        return account.model_copy(update=update)

    return change


async def recount(ledgers: Ledgers) -> list[tuple[Budget, Budget]]:
    """What changed, before and after. Raises SettingsError while calls are being paid."""
    before = await ledgers.budgets()
    paying = {
        name.rsplit("-", 1)[0]
        for budget in before
        for name, share in budget.account.shares.items()
        if not silent(share, ledgers.now)
    }
    if paying:
        raise SettingsError(
            f"calls of {', '.join(sorted(paying))} are paid, or wait for money, at this moment; "
            "let them end, or stop these services, wait 20 s, and try again"
        )
    sums = sums_of(await read_attempts(ledgers.js))
    for kind, name in {(b.kind, b.name) for b in before} | sums.keys():
        await ledgers.account(kind, name).change(recounted(sums.get((kind, name), Sums())))
    old = {(b.kind, b.name): b for b in before}
    return [
        (old.get((new.kind, new.name), new), new)
        for new in await ledgers.budgets()
        if (o := old.get((new.kind, new.name))) is None
        or (o.settled, o.uncertain, o.reserved) != (new.settled, new.uncertain, new.reserved)
    ]
