"""How a result came about: who served it, what it cost, what was checked."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Literal

from pydantic import Field

from services.kernel.contracts.base import Contract, Usd


class Usage(Contract):
    """Tokens and money of one completion, as the provider counted them."""

    prompt_tokens: int = Field(default=0, ge=0)
    completion_tokens: int = Field(default=0, ge=0)
    reasoning_tokens: int = Field(default=0, ge=0)
    cached_tokens: int = Field(default=0, ge=0)
    cost_usd: Usd = Decimal(0)


class CheckVerdict(Contract):
    """What one check said of a result."""

    check: str
    verdict: Literal["passed", "flagged", "failed"]
    detail: str | None = None


class StageProvenance(Contract):
    """One stage's part in a card.

    `cached`: the completion came from our cache; then no call was made for it. `rebuilt`: the cache
    had it from a result that was made of it before, not in the model's own words. `calls` and
    `cost_usd` count every call of this term in this stage, the failed attempts too; `usage` is
    that of the completion used (of the original call when it came from the cache).
    """

    model: str
    provider: str
    fingerprint: str
    prompt_version: str
    generation_id: str | None = None
    cached: bool
    rebuilt: bool = False
    attempts: int = Field(ge=0)
    calls: int = Field(ge=0)
    usage: Usage
    cost_usd: Usd
    started_at: datetime
    finished_at: datetime
    checks: tuple[CheckVerdict, ...] = ()
