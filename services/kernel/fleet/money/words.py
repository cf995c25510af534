"""What a budget says to people: what is used up, and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Final

from services.kernel.fleet.money.limits import ACCOUNTS
from services.kernel.fleet.money.spending import Account

_OPTIONS: Final = {"day": "--day USD", "stage": "--stage {}=USD", "batch": "--batch {}=USD"}


def reached_words(
    key: str, account: Account, limit: Decimal | None, worst: Decimal, now: float
) -> str:
    """Which budget is used up, how, and what raises it. `worst`: what the next call can cost."""
    kind, name = key.removeprefix(ACCOUNTS).split(".", 1)
    uncertain = account.all_uncertain_usd(now)
    also = f" and {usd(uncertain)} uncertain" if uncertain else ""
    return (
        f"the budget of {kind} {name} is used up: {usd(account.all_settled_usd)} spent{also} of "
        f"{usd(limit or Decimal(0))}, and the next call can cost {usd(worst)}; nothing is lost, "
        "and work goes on by itself when it is raised: "
        f"cardflow budget {_OPTIONS[kind].format(name)}"
    )


def unpriced_words(models: Sequence[str]) -> str:
    """A limit can't be kept for a model without a price."""
    model = models[0] if models else "MODEL"
    return (
        f"there is a budget, but the price of {model} is not known: the provider does not list "
        f'it; set CARDFLOW_PRICES=\'{{"{model}": {{"prompt_usd": X, "completion_usd": Y}}}}\' '
        "(US dollars a million tokens) and start the stage anew, or take the budget away: "
        "cardflow budget --unset day"
    )


def usd(amount: Decimal) -> str:
    """`$0.50`, `$0.001234`: cents at least, and six decimals at most."""
    text = f"{amount:,.6f}".rstrip("0")
    whole, _, decimals = text.partition(".")
    return f"${whole}.{decimals:0<2}"
