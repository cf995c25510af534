"""Putting the money of one stage together: prices, accounts, and what looks after them."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final

import structlog

from services.kernel.connected import Connected
from services.kernel.errors import SettingsError, TransientError
from services.kernel.fleet.clock import FleetClock
from services.kernel.fleet.money.limits import LIMITS_KEY, BudgetLimits
from services.kernel.fleet.money.purses import Bounds, Purses
from services.kernel.fleet.money.spending import Account
from services.kernel.fleet.money.words import unpriced_words
from services.kernel.fleet.records import Fleet
from services.kernel.llm.fleet_budget import FleetBudget
from services.kernel.llm.http_provider import HttpProvider
from services.kernel.llm.prices import Prices, WorstCase, listed_prices
from services.kernel.model_settings import ModelSettings, StageSettings
from services.kernel.provider_access import ProviderAccess

_AGAIN_S: Final = 30.0
_EVERY_S: Final = 3_600.0


@dataclass(frozen=True)
class Stage:
    """Which stage's money: its service's name and its settings."""

    name: str
    settings: StageSettings


@asynccontextmanager
async def open_budget(
    fleet: Fleet,
    clock: FleetClock,
    settings: ModelSettings,
    stage: Stage,
    worst_case: WorstCase,
    connected: Connected,
) -> AsyncIterator[FleetBudget]:
    """The budget while the block runs; at its end everything is written down and given back."""
    purses: Purses | None = None

    def look_again() -> None:
        if purses is not None:
            purses.look_again()

    def note_trouble(reason: str | None) -> None:
        connected.dependencies["budget"] = reason

    limits = await fleet.followed(LIMITS_KEY, BudgetLimits(), look_again)
    note_trouble(None)
    purses = Purses(
        lambda key: fleet.record(key, Account()),
        lambda: limits.value,
        Bounds(settings.budget.per_day_usd, stage.settings.budget_usd),
        stage=stage.name,
        name=f"{stage.name}-{secrets.token_hex(4)}",
        concurrency=stage.settings.concurrency,
        now=clock.now,
        metrics=connected.metrics,
        circumstances=connected.circumstances,
        note_trouble=note_trouble,
    )
    looking_after = asyncio.create_task(purses.run())
    try:
        yield FleetBudget(purses, worst_case)
    finally:
        looking_after.cancel()
        await asyncio.gather(looking_after, return_exceptions=True)
        await purses.close()


@asynccontextmanager
async def open_prices(
    settings: ModelSettings,
    stage: StageSettings,
    providers: Sequence[tuple[ProviderAccess, HttpProvider]],
) -> AsyncIterator[Prices]:
    """The prices, kept up to date from the providers' lists while the block runs.

    Without a budget in the settings nobody waits for them. Raises SettingsError for one when a
    provider that answers does not list its model, and the table has no price for it. One that
    can't be reached is asked again.
    """
    prices = Prices(settings.prices)
    is_limited = settings.budget.per_day_usd is not None or stage.budget_usd is not None
    async with AsyncExitStack() as stack:
        for access, provider in providers:
            if is_limited and await _take_list(prices, provider) and prices[access.model] is None:
                raise SettingsError(unpriced_words([access.model]))
            stack.callback(asyncio.create_task(_keep_list(prices, access, provider)).cancel)
        yield prices


async def _take_list(prices: Prices, provider: HttpProvider) -> bool:
    """False when the provider could not be asked."""
    try:
        prices.take_listed(listed_prices(await provider.list_models()))
    except TransientError as error:
        structlog.get_logger().info("prices.unread", error=str(error))
        return False
    return True


async def _keep_list(prices: Prices, access: ProviderAccess, provider: HttpProvider) -> None:
    while True:
        await _take_list(prices, provider)
        await asyncio.sleep(_AGAIN_S if prices[access.model] is None else _EVERY_S)
