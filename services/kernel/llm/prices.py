"""What a model's tokens cost, and what one call can cost at most.

Prices are the operator's table, and where it has none, what the provider lists.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import structlog

from services.kernel.contracts.provenance import Usage
from services.kernel.llm.prompt import CompletionRequest, Inquiry
from services.kernel.llm.provider import Completion, Provider, UnfitCompletion
from services.kernel.model_settings import ModelPrice
from services.kernel.provider_access import ProviderAccess

_MILLION: Final = Decimal(1_000_000)
_TOKEN_MAX_USD: Final = Decimal("0.01")
"""$10,000 a million tokens: more is no price, but a mistake on the list."""
_REQUEST_MAX_USD: Final = Decimal(100)
_UNKNOWN: Final = "unknown"


class Prices:
    """The prices of one stage's models, as far as they are known.

    A bill over the worst case shows that a list is wrong, or that a dearer endpoint served: from
    then on that model's worst cases are larger in the same ratio.
    """

    def __init__(self, table: Mapping[str, ModelPrice]) -> None:
        self._table = table
        self._listed: dict[str, ModelPrice] = {}
        self._ratios: dict[str, Decimal] = {}

    def __getitem__(self, model: str) -> ModelPrice | None:
        return self._table.get(model) or self._listed.get(model)

    def source(self, model: str) -> str:
        """Where a price is from: `CARDFLOW_PRICES`, `provider` or `unknown`."""
        if model in self._table:
            return "CARDFLOW_PRICES"
        return "provider" if model in self._listed else _UNKNOWN

    def take_listed(self, listed: Mapping[str, ModelPrice]) -> None:
        self._listed = {**self._listed, **listed}

    def worst_case(self, request: CompletionRequest, max_tokens: int) -> Decimal | None:
        """What one call can cost at most, in USD; None without a price.

        No tokenizer makes more tokens than there are bytes, and the body holds all of the prompt,
        with more bytes of JSON around each message than a chat template has tokens.
        """
        price = self[request.model]
        if price is None:
            return None
        usage = Usage(prompt_tokens=len(request.body), completion_tokens=max_tokens)
        return cost_of(price, usage) * self._ratios.get(request.model, Decimal(1))

    def note_bill(self, model: str, worst: Decimal, billed: Decimal) -> None:
        """`billed` was reserved as `worst`."""
        if not worst or billed <= worst:
            return
        self._ratios[model] = self._ratios.get(model, Decimal(1)) * (billed / worst)
        structlog.get_logger().warning(
            "price.exceeded",
            model=model,
            reserved_usd=float(worst),
            billed_usd=float(billed),
            hint="the price list is too low; more is reserved from now on: set CARDFLOW_PRICES",
        )


class WorstCase:
    """The most that one call for an inquiry can cost, whichever of the routes serves it."""

    def __init__(self, prices: Prices, accesses: Iterable[ProviderAccess]) -> None:
        self.prices = prices
        self._accesses = tuple(accesses)

    def __call__(self, inquiry: Inquiry) -> Decimal | None:
        """In USD; None when the price of a model is unknown."""
        worst = [
            self.prices.worst_case(inquiry.request(access), inquiry.max_tokens)
            for access in self._accesses
        ]
        known = [usd for usd in worst if usd is not None]
        return max(known) if len(known) == len(worst) else None

    def unpriced(self, inquiry: Inquiry) -> list[str]:
        """The models without a price that may be asked."""
        models = dict.fromkeys(inquiry.request(access).model for access in self._accesses)
        return [model for model in models if self.prices[model] is None]

    def note_bill(self, inquiry: Inquiry, worst: Decimal, billed: Decimal) -> None:
        for access in self._accesses:
            self.prices.note_bill(inquiry.request(access).model, worst, billed)


class Priced:
    """A provider whose bill is worked out where it sends none, as local servers do."""

    def __init__(self, provider: Provider, prices: Prices) -> None:
        self._provider = provider
        self._prices = prices

    async def complete(self, request: CompletionRequest) -> Completion:
        try:
            return self._with_cost(request, await self._provider.complete(request))
        except UnfitCompletion as error:
            completion = self._with_cost(request, error.completion)
            raise UnfitCompletion(error.reason, error.detail, completion) from error.__cause__

    def _with_cost(self, request: CompletionRequest, completion: Completion) -> Completion:
        price, usage = self._prices[request.model], completion.usage
        if price is None or usage.cost_usd:
            return completion
        usage = usage.model_copy(update={"cost_usd": cost_of(price, usage)})
        return completion.model_copy(update={"usage": usage})


def cost_of(price: ModelPrice, usage: Usage) -> Decimal:
    """In USD; 0 for no tokens at all."""
    tokens_usd = (
        price.prompt_usd * usage.prompt_tokens + price.completion_usd * usage.completion_tokens
    ) / _MILLION
    is_used = usage.prompt_tokens or usage.completion_tokens
    return tokens_usd + (price.request_usd if is_used else 0)


def listed_prices(body: bytes) -> dict[str, ModelPrice]:
    """Every sensible price on a provider's list of models: dollars a token, as strings.

    Empty for what is no such list. A price that is negative (a router's), absurd or no number
    leaves its model out.
    """
    try:
        models = json.loads(body)["data"]
    except (ValueError, RecursionError, KeyError, TypeError):
        return {}
    listed: dict[str, ModelPrice] = {}
    for model in models if isinstance(models, list) else []:
        id_ = model.get("id") if isinstance(model, dict) else None
        price = _listed_price(model.get("pricing")) if isinstance(id_, str) else None
        if price is not None:
            listed[str(id_)] = price
    return listed


def _listed_price(pricing: Any) -> ModelPrice | None:
    if not isinstance(pricing, dict):
        return None
    prompt = _usd(pricing.get("prompt"), _TOKEN_MAX_USD)
    completion = _usd(pricing.get("completion"), _TOKEN_MAX_USD)
    request = _usd(pricing.get("request", "0"), _REQUEST_MAX_USD)
    if prompt is None or completion is None or request is None:
        return None
    return ModelPrice(
        prompt_usd=prompt * _MILLION, completion_usd=completion * _MILLION, request_usd=request
    )


def _usd(value: Any, most: Decimal) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        amount = Decimal(str(value))
    except InvalidOperation:
        return None
    return amount if amount.is_finite() and 0 <= amount <= most else None
