"""`submit --max-cost`: refused beforehand when more is expected, never passed afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from nats.js import JetStreamContext

from services.cli.budgets.ledgers import Ledgers
from services.cli.common import FAILED, fail
from services.cli.estimating.estimate import Estimate
from services.cli.estimating.showing import summary_lines
from services.cli.estimating.sources import estimate_submission
from services.cli.submitting.submission import Submission
from services.kernel.fleet.money.spending import Account
from services.kernel.fleet.money.words import usd


@dataclass(frozen=True)
class Bounded:
    """What was expected, and the budget that the batch has now.

    `is_own`: it came with --max-cost, and not by hand.
    """

    estimate: Estimate
    max_cost: Decimal
    limit: Decimal
    is_own: bool

    def line(self, batch: str) -> str:
        expected = usd(self.estimate.cost_usd or Decimal(0))
        if not self.is_own:
            return (
                f"Expected cost: {expected}. The batch has a budget of {usd(self.limit)}, which "
                f"stays; change it with: cardflow budget --batch {batch}=USD"
            )
        return f"Expected cost: {expected}; the batch's budget is {usd(self.limit)}."

    def as_json(self) -> dict[str, Any]:
        return {
            "expected_usd": float(round(self.estimate.cost_usd or Decimal(0), 6)),
            "max_cost_usd": float(self.max_cost),
            "limit_usd": float(self.limit),
        }


async def bound_cost(
    js: JetStreamContext,
    batch: str,
    read: Submission,
    max_cost: Decimal,
    endpoints: Mapping[str, Any] | None,
) -> Bounded:
    """Gives the batch its budget; ends the command (exit 1) when more is expected."""
    estimate = await estimate_submission(read, js, endpoints)
    expected, worst = estimate.cost_usd, estimate.worst_usd
    if expected is None or worst is None:
        fail(f"nothing was published: {summary_lines(estimate)[0]}", code=FAILED)
    if expected > max_cost:
        fail(
            f"nothing was published: {usd(expected)} is expected for {estimate.calls:,} calls (at "
            f"most {usd(worst)}), and --max-cost is {usd(max_cost)}; see `cardflow estimate`",
            code=FAILED,
        )
    ledgers = await Ledgers.open(js)
    record = ledgers.account("batch", batch)
    limit = limit_after(await record.load(), max_cost)
    account = await record.change(lambda account: _limited(account, limit))
    return Bounded(estimate, max_cost, account.limit_usd or limit, account.is_limit_of_submit)


def limit_after(account: Account, max_cost: Decimal) -> Decimal:
    """A first budget is on top of what the batch has cost, the next one on top of the first."""
    before = account.total_usd if account.limit_usd is None else account.limit_usd
    return before + max_cost


def _limited(account: Account, limit: Decimal) -> Account:
    """A budget that somebody set by hand stays."""
    if account.limit_usd is not None and not account.is_limit_of_submit:
        return account
    return account.model_copy(update={"limit_usd": limit, "is_limit_of_submit": True})
