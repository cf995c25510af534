"""A submission, tracked to its end; the events on BATCHES."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from services.kernel.contracts.base import Batch, Contract, Usd


class BatchOpened(Contract):
    """Declares how many submissions a batch will have, so that its end is known."""

    version: Literal[1] = 1
    batch: Batch
    expected: int = Field(ge=0)
    deck: str | None = None
    opened_at: datetime


class BatchCancelled(Contract):
    """Nothing more is spent on the batch; what is finished stays.

    `undone_at`: since then it goes on after all.
    """

    version: Literal[1] = 1
    batch: Batch
    note: str | None = None
    cancelled_at: datetime
    undone_at: datetime | None = None


class BatchProgress(Contract):
    """How far a batch is. `current` of `total` terms have ended; `progress` is their ratio, 0–1.

    `cached` counts the completions answered from our cache, `calls` those asked of the provider.
    """

    version: Literal[1] = 1
    batch: Batch
    current: int = Field(ge=0)
    total: int = Field(ge=0)
    progress: float = Field(ge=0, le=1)
    finished: int = Field(ge=0)
    dead: int = Field(ge=0)
    cancelled: int = Field(default=0, ge=0)
    cached: int = Field(ge=0)
    calls: int = Field(ge=0)
    cost_usd: Usd
    at: datetime


class BatchCompleted(BatchProgress):
    """Every term of the batch has ended: finished, dead or cancelled."""

    duration_s: float = Field(ge=0)
