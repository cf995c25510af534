"""The accounts of all budgets as they stand, with the limits in force."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from nats.js import JetStreamContext
from nats.js.kv import KeyValue

from services.kernel import topology
from services.kernel.errors import SettingsError
from services.kernel.fleet.clock import FleetClock
from services.kernel.fleet.money.limits import (
    ACCOUNTS,
    LIMITS_KEY,
    BudgetLimits,
    account_key,
    day_of,
)
from services.kernel.fleet.money.spending import Account
from services.kernel.model_settings import ModelSettings
from services.kernel.record import Record
from services.kernel.settings import load_settings
from services.kernel.stream.reading import subjects_of

STAGES: Final = ("stage1", "stage2")
_AT_ONCE: Final = 50
_WRITES_MAX: Final = 50


@dataclass(frozen=True)
class Budget:
    """One account at one moment. `limit` is None without one."""

    kind: str
    name: str
    account: Account
    limit: Decimal | None
    now: float

    @property
    def settled(self) -> Decimal:
        return self.account.all_settled_usd

    @property
    def reserved(self) -> Decimal:
        return self.account.reserved_usd(self.now)

    @property
    def uncertain(self) -> Decimal:
        return self.account.all_uncertain_usd(self.now)

    @property
    def left(self) -> Decimal | None:
        return None if self.limit is None else self.account.left_usd(self.limit)

    @property
    def is_reached(self) -> bool:
        """As far as can be told: there is no money for a call as dear as the dearest so far."""
        return self.account.is_reached(self.limit, self.account.dearest_usd, self.now)

    def as_json(self) -> dict[str, Any]:
        return {
            "account": self.kind,
            "name": self.name,
            "limit_usd": None if self.limit is None else float(self.limit),
            "settled_usd": float(self.settled),
            "reserved_usd": float(self.reserved),
            "uncertain_usd": float(self.uncertain),
            "left_usd": None if self.left is None else float(self.left),
            "reached": self.is_reached,
        }


class Ledgers:
    """The records of money of one pipeline. Raises Outage when the bucket is away."""

    def __init__(self, js: JetStreamContext, bucket: KeyValue, now: float) -> None:
        self.js = js
        self.now = now
        self._bucket = bucket

    @classmethod
    async def open(cls, js: JetStreamContext) -> Ledgers:
        clock = FleetClock()
        await clock.set(js)
        return cls(js, await js.key_value(topology.FLEET.name), clock.now())

    def account(self, kind: str, name: str) -> Record[Account]:
        key = f"{ACCOUNTS}{kind}.{name}"
        return Record(self._bucket, key, Account(), writes_max=_WRITES_MAX)

    def limits(self) -> Record[BudgetLimits]:
        return Record(self._bucket, LIMITS_KEY, BudgetLimits(), writes_max=_WRITES_MAX)

    async def budgets(self) -> list[Budget]:
        """Every account: days, the newest first, stages, batches. Today and the stages always."""
        prefix = f"$KV.{topology.FLEET.name}."
        stored = await subjects_of(self.js, f"KV_{topology.FLEET.name}", f"{prefix}{ACCOUNTS}>")
        keys = {subject.removeprefix(prefix) for subject in stored}
        keys |= {account_key("day", day_of(self.now))}
        keys |= {account_key("stage", stage) for stage in STAGES}
        limits = await self.limits().load()
        slots = asyncio.Semaphore(_AT_ONCE)

        async def budget(key: str) -> Budget:
            kind, _, name = key.removeprefix(ACCOUNTS).partition(".")
            async with slots:
                account = await self.account(kind, name).load()
            return Budget(kind, name, account, self._limit(kind, name, account, limits), self.now)

        found = await asyncio.gather(*map(budget, sorted(keys)))
        by_kind = {kind: [b for b in found if b.kind == kind] for kind in ("day", "stage", "batch")}
        return [*reversed(by_kind["day"]), *by_kind["stage"], *by_kind["batch"]]

    def _limit(
        self, kind: str, name: str, account: Account, limits: BudgetLimits
    ) -> Decimal | None:
        """What is in force; where no replica has spent yet, what the settings of here say."""
        if kind == "batch":
            return account.limit_usd
        is_today = name == day_of(self.now)
        if kind == "day" and not is_today:
            return account.limit_usd
        set_usd = limits.day_usd if kind == "day" else limits.stages.get(name)
        if set_usd is not None or account.limit_usd is not None:
            return set_usd if set_usd is not None else account.limit_usd
        return _limit_of_settings(kind, name)


def _limit_of_settings(kind: str, name: str) -> Decimal | None:
    from services.cli.commands.settings import SETTINGS

    if kind == "day":
        return load_settings(ModelSettings).budget.per_day_usd
    if name not in STAGES:
        return None
    settings = load_settings(SETTINGS[name])
    limit: Decimal | None = getattr(settings, name).budget_usd
    return limit


def stage_named(name: str) -> str:
    """Raises SettingsError for what is no stage that spends money."""
    if name not in STAGES:
        raise SettingsError(f"{name!r} is no stage that spends money; those are stage1 and stage2")
    return name


def batch_named(name: str) -> str:
    """Raises SettingsError for what can be no batch."""
    if not topology.is_batch_name(name):
        raise SettingsError(f"{name!r} is no batch name; see `cardflow status`")
    return name
