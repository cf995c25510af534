"""Completions that somebody took out of the cache, so that they may be paid for again."""

from __future__ import annotations

from datetime import datetime

from services.kernel.contracts.base import Contract


class CachePurge(Contract):
    """One purge: of the completions kept by `at` those that these fit; None fits all.

    `kept_before`: only those kept before then. `stage` is `unknown` for those without a prompt.
    """

    at: datetime
    stage: str | None = None
    model: str | None = None
    prompt_version: str | None = None
    kept_before: datetime | None = None


class CachePurges(Contract):
    """All purges, oldest first; the record in FLEET."""

    purges: tuple[CachePurge, ...] = ()
