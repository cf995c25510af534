"""What was tried for one term in one service: written before a call, settled after it."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Literal

from pydantic import Field

from services.kernel.contracts.base import Contract, Usd

Outcome = Literal["started", "billed", "unbilled", "uncertain", "throttled", "failed", "cached"]


class Attempt(Contract):
    """One try that did work.

    `started` and never settled means that its process died: the call is *uncertain*.
    `throttled` counts as no attempt, and stands once for `times` refusals in a row; `failed` is a
    failure without any call, `cached` a result without one. `id` tells a record's attempts apart;
    older ones have none. `is_repair`: a call that showed the model its unfit reply, or gave it more
    room.
    """

    id: str = ""
    replay: int = Field(default=0, ge=0)
    outcome: Outcome
    times: int = Field(default=1, ge=1)
    fingerprint: str | None = None
    is_repair: bool = False
    generation_id: str | None = None
    model: str | None = None
    prompt_tokens: int = Field(default=0, ge=0)
    completion_tokens: int = Field(default=0, ge=0)
    cost_usd: Usd = Decimal(0)
    started_at: datetime
    finished_at: datetime | None = None
    error: str | None = None


class GivenUp(Contract):
    """That a term became nothing in this replay, and why; decided before its record is written."""

    replay: int = Field(ge=0)
    reason: str


class AttemptHistory(Contract):
    """All attempts for one term in one service, oldest first."""

    attempts: tuple[Attempt, ...] = ()
    given_up: GivenUp | None = None

    def is_given_up(self, replay: int) -> bool:
        return self.given_up is not None and self.given_up.replay >= replay

    def count(self, replay: int) -> int:
        """Attempts used since the given replay; throttled ones use none."""
        return sum(a.replay == replay and a.outcome != "throttled" for a in self.attempts)

    @property
    def calls(self) -> int:
        """Calls that reached a provider, or may have."""
        return sum(a.fingerprint is not None and a.outcome != "throttled" for a in self.attempts)

    @property
    def cost_usd(self) -> Decimal:
        return sum((a.cost_usd for a in self.attempts), Decimal(0))

    @property
    def uncertain(self) -> int:
        """Calls whose outcome, and so whose bill, is unknown."""
        unknown = ("started", "uncertain", "failed")
        return sum(a.fingerprint is not None and a.outcome in unknown for a in self.attempts)
