"""What a list will cost: calls times figures times prices. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from services.cli.estimating.answers import Asking, Known
from services.cli.estimating.figures import STAGES, Figures
from services.kernel.contracts.provenance import Usage
from services.kernel.llm.prices import cost_of
from services.kernel.model_settings import ModelPrice, StageSettings

_MINUTE_S: Final = 60.0


@dataclass(frozen=True)
class Rows:
    """What the files hold. `terms` are different ones that ingest will take."""

    rows: int
    terms: int
    refused: int
    duplicates: int


@dataclass(frozen=True)
class StageEstimate:
    """One stage's part. Money is None without a price."""

    calls: int
    cached: int
    figures: Figures
    cost_usd: Decimal | None
    worst_usd: Decimal | None
    time_s: float

    @property
    def prompt_tokens(self) -> int:
        return round(self.calls * self.figures.prompt_tokens)

    @property
    def completion_tokens(self) -> int:
        return round(self.calls * self.figures.completion_tokens)

    def as_json(self) -> dict[str, Any]:
        return {
            "calls": self.calls,
            "cached": self.cached,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "cost_usd": _number(self.cost_usd),
            "worst_usd": _number(self.worst_usd),
            "time_s": round(self.time_s, 1),
            "figures_from": self.figures.source,
        }


@dataclass(frozen=True)
class Estimate:
    """`price_from`: CARDFLOW_PRICES, provider, simulator or unknown. `cache_from`: cache, none."""

    rows: Rows
    model: str
    stages: Mapping[str, StageEstimate]
    price_from: str
    cache_from: str
    replicas_from: str

    @property
    def calls(self) -> int:
        return sum(stage.calls for stage in self.stages.values())

    @property
    def cost_usd(self) -> Decimal | None:
        """Expected; None without a price."""
        return _sum(stage.cost_usd for stage in self.stages.values())

    @property
    def worst_usd(self) -> Decimal | None:
        """When every answer is as long as it may be, each asked for once."""
        return _sum(stage.worst_usd for stage in self.stages.values())

    @property
    def time_s(self) -> float:
        """The stages work at the same time; the slower one decides."""
        return max(stage.time_s for stage in self.stages.values())

    def as_json(self) -> dict[str, Any]:
        return {
            "rows": self.rows.rows,
            "terms": self.rows.terms,
            "refused": self.rows.refused,
            "duplicates": self.rows.duplicates,
            "model": self.model,
            "calls": self.calls,
            "cached": sum(stage.cached for stage in self.stages.values()),
            "prompt_tokens": sum(stage.prompt_tokens for stage in self.stages.values()),
            "completion_tokens": sum(s.completion_tokens for s in self.stages.values()),
            "cost_usd": _number(self.cost_usd),
            "worst_usd": _number(self.worst_usd),
            "time_s": round(self.time_s, 1),
            "price_from": self.price_from,
            "cache_from": self.cache_from,
            "replicas_from": self.replicas_from,
            "stages": {name: stage.as_json() for name, stage in self.stages.items()},
        }


@dataclass(frozen=True)
class Sources:
    """What an estimate stands on."""

    asking: Asking
    known: Known | None
    figures: Mapping[str, Figures]
    price: ModelPrice | None
    price_from: str
    replicas: Mapping[str, int] | None


def estimate_of(rows: Rows, sources: Sources) -> Estimate:
    """Without a pipeline to ask (`known`, `replicas` of None) everything is asked anew by one
    replica of each stage."""
    asking = sources.asking
    known = sources.known or Known()
    cached = {"stage1": known.stage1, "stage2": known.stage2}
    settings = {"stage1": asking.stage1, "stage2": asking.stage2}
    replicas = sources.replicas or {}
    return Estimate(
        rows=rows,
        model=asking.access.model,
        stages={
            name: _stage(
                rows.terms - cached[name],
                cached[name],
                sources.figures[name],
                sources.price,
                settings[name],
                replicas.get(name, 1),
            )
            for name in STAGES
        },
        price_from=sources.price_from,
        cache_from="none" if sources.known is None else "cache",
        replicas_from="assumed" if sources.replicas is None else "pipeline",
    )


def _stage(
    calls: int,
    cached: int,
    figures: Figures,
    price: ModelPrice | None,
    settings: StageSettings,
    replicas: int,
) -> StageEstimate:
    cost = worst = None
    if price is not None:
        at_most = Usage(prompt_tokens=figures.body_max_bytes, completion_tokens=settings.max_tokens)
        cost, worst = calls * _expected(price, figures), calls * cost_of(price, at_most)
    at_once = settings.concurrency * replicas
    paced_s = (
        calls * _MINUTE_S / settings.requests_per_minute if settings.requests_per_minute else 0
    )
    time_s = max(-(-calls // at_once) * figures.seconds, paced_s)
    return StageEstimate(calls, cached, figures, cost, worst, time_s)


def _expected(price: ModelPrice, figures: Figures) -> Decimal:
    thousand = Usage(
        prompt_tokens=round(1_000 * figures.prompt_tokens),
        completion_tokens=round(1_000 * figures.completion_tokens),
    )
    return (cost_of(price, thousand) - price.request_usd) / 1_000 + price.request_usd


def _sum(amounts: Any) -> Decimal | None:
    found = list(amounts)
    return None if None in found else sum(found, Decimal(0))


def _number(amount: Decimal | None) -> float | None:
    return None if amount is None else float(round(amount, 6))
