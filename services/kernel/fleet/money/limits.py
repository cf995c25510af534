"""What may be spent: the operator's limits of days and stages, and the names of the accounts.

A batch's limit stands in its account, where setting it and spending against it are one record.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Final, Literal

from services.kernel.contracts.base import Contract, ExactUsd
from services.kernel.errors import SettingsError
from services.kernel.model_settings import BUDGET_MAX_USD

LIMITS_KEY: Final = "budget.limits"
ACCOUNTS: Final = "spend."
"""How the keys of all accounts begin."""

LIMIT_MIN_USD: Final = Decimal("0.000001")

Kind = Literal["day", "stage", "batch"]


class BudgetLimits(Contract):
    """What the operator has set while the pipeline runs; where nothing is set, settings hold."""

    day_usd: ExactUsd | None = None
    stages: Mapping[str, ExactUsd] = {}


def account_key(kind: Kind, name: str) -> str:
    return f"{ACCOUNTS}{kind}.{name}"


def day_of(now: float) -> str:
    """The day in UTC, `yyyy-mm-dd`, of a moment in seconds since the epoch."""
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d")


def limit_of(text: str, where: str) -> Decimal:
    """A limit as a person writes it: `5`, `$0.50`. Raises SettingsError that says what is wrong."""
    try:
        limit = Decimal(text.strip().removeprefix("$"))
    except InvalidOperation:
        limit = Decimal("NaN")
    if not limit.is_finite() or not LIMIT_MIN_USD <= limit <= BUDGET_MAX_USD:
        raise SettingsError(
            f"{where} {text!r} is no budget; give US dollars from {LIMIT_MIN_USD:f} to "
            f"{BUDGET_MAX_USD:,}, such as 5 or 0.50. To spend nothing, pause the stages: "
            "cardflow pause stage1 stage2"
        )
    return limit
