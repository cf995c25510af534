"""What the simulator says that it saw and charged, next to what was recorded."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import httpx

from services.cli.accounts.accounting import Problem
from services.cli.accounts.billing import Seen, Tally, provider_problems
from services.kernel.provider_access import is_loopback

T = TypeVar("T")

_TIMEOUT_S: Final = 5.0
_NEEDED: Final = {"calls", "charged_usd", "started_at"}


@dataclass(frozen=True)
class Comparison:
    """The provider's books and ours. `reason` says why they can't be compared, or is None."""

    base_url: str
    reason: str | None = None
    calls_seen: int | None = None
    charged_usd: Decimal | None = None
    recorded: Tally = field(default_factory=Tally)
    problems: tuple[Problem, ...] = ()

    @property
    def balanced(self) -> bool:
        return not self.problems

    def as_json(self) -> dict[str, Any]:
        return {
            "kind": "simulated",
            "base_url": self.base_url,
            "comparable": self.reason is None,
            "reason": self.reason,
            "balanced": self.balanced,
            "calls_seen": self.calls_seen,
            "calls_recorded": self.recorded.calls,
            "throttled": self.recorded.throttled,
            "unbilled": self.recorded.unbilled,
            "uncertain": self.recorded.uncertain,
            "charged_usd": None if self.charged_usd is None else float(self.charged_usd),
            "cost_usd": float(self.recorded.cost_usd),
        }


def simulator_url(endpoints: Mapping[str, Any] | None) -> str | None:
    """The base URL of the simulator of a running pipeline; None where another provider serves."""
    provider = (endpoints or {}).get("provider") or {}
    url = str(provider.get("base_url") or "")
    return url if provider.get("kind") == "simulated" and is_loopback(url) else None


async def compare_while(
    base_url: str, read: Callable[[], Awaitable[T]], tally_of: Callable[[T], Tally]
) -> tuple[T, Comparison]:
    """Reads our books between two looks at the provider's: work that goes on is then no gap."""
    before = await _stats(base_url)
    ours = await read()
    after = await _stats(base_url)
    return ours, _compared(base_url, before, tally_of(ours), after)


async def _stats(base_url: str) -> dict[str, Any] | str:
    """The simulator's statistics, or why there are none."""
    parts = urlsplit(base_url)
    try:
        async with httpx.AsyncClient(timeout=_TIMEOUT_S, trust_env=False) as client:
            answer = await client.get(f"{parts.scheme}://{parts.netloc}/stats?terms=0")
        stats = answer.raise_for_status().json()
    except (httpx.HTTPError, ValueError) as error:
        return f"the simulator did not answer: {error!r}"
    if not isinstance(stats, dict) or not stats.keys() >= _NEEDED:
        return f"its /stats lack some of {', '.join(sorted(_NEEDED))}: is it the simulator?"
    return stats


def _compared(
    base_url: str, before: dict[str, Any] | str, recorded: Tally, after: dict[str, Any] | str
) -> Comparison:
    if isinstance(before, str) or isinstance(after, str):
        reason = before if isinstance(before, str) else str(after)
        return Comparison(base_url, reason, recorded=recorded)
    seen = _seen(after)
    started_at = datetime.fromisoformat(str(after["started_at"]))
    first_at = recorded.first_at
    if before["started_at"] != after["started_at"] or (first_at and started_at > first_at):
        reason = "the simulator was restarted and has forgotten its earlier calls"
        return Comparison(base_url, reason, seen.calls, seen.charged_usd, recorded)
    problems = tuple(provider_problems(_seen(before), recorded, seen))
    return Comparison(base_url, None, seen.calls, seen.charged_usd, recorded, problems)


def _seen(stats: Mapping[str, Any]) -> Seen:
    """The shortest decimal form of the JSON number is the exact amount."""
    return Seen(int(stats["calls"]), Decimal(str(stats["charged_usd"])))
