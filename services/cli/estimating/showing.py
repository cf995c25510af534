"""An estimate for people."""

from __future__ import annotations

from typing import Final

from rich.table import Table

from services.cli.estimating.estimate import Estimate, StageEstimate
from services.kernel.fleet.money.words import usd

_UNKNOWN_PRICE: Final = (
    "The price of {model} is not known: the provider does not list it, or could not be asked. Set "
    'CARDFLOW_PRICES=\'{{"{model}": {{"prompt_usd": X, "completion_usd": Y}}}}\' (US dollars a '
    "million tokens)."
)
_PRICES: Final = {
    "CARDFLOW_PRICES": "your table (CARDFLOW_PRICES)",
    "provider": "the provider's list",
    "simulator": "the simulator's own (it does not run)",
}
_FIGURES: Final = {
    "cards": "the newest cards of this pipeline",
    "typical": "typical figures: the shipped words with the simulator, 50 tokens a second",
}


def rows_line(estimate: Estimate) -> str:
    rows = estimate.rows
    parts = [f"{rows.rows:,} rows: {rows.terms:,} terms"]
    if rows.duplicates:
        parts.append(f"{rows.duplicates:,} duplicates")
    if rows.refused:
        parts.append(f"{rows.refused:,} will be refused (cardflow check says why)")
    return ", ".join(parts) + "."


def stages_table(estimate: Estimate) -> Table:
    table = Table(box=None, pad_edge=False)
    names = ("", "calls", "cached", "tokens in", "tokens out", "cost", "at most", "time")
    for name in names:
        table.add_column(name, justify="right" if name else "left")
    for name, stage in estimate.stages.items():
        table.add_row(name, *_cells(stage))
    return table


def _cells(stage: StageEstimate) -> tuple[str, ...]:
    return (
        f"{stage.calls:,}",
        f"{stage.cached:,}",
        f"{stage.prompt_tokens:,}",
        f"{stage.completion_tokens:,}",
        "unknown" if stage.cost_usd is None else usd(stage.cost_usd),
        "unknown" if stage.worst_usd is None else usd(stage.worst_usd),
        duration(stage.time_s),
    )


def summary_lines(estimate: Estimate) -> list[str]:
    """The sum, and where each figure is from."""
    cost, worst = estimate.cost_usd, estimate.worst_usd
    lines = []
    if cost is None or worst is None:
        lines.append(_UNKNOWN_PRICE.format(model=estimate.model))
    else:
        lines.append(
            f"Expected: {usd(cost)} in about {duration(estimate.time_s)}; at most {usd(worst)}, "
            "each call made once with the longest answer."
        )
        lines.append(f"Prices of {estimate.model}: {_PRICES[estimate.price_from]}.")
    sources = dict.fromkeys(stage.figures.source for stage in estimate.stages.values())
    lines += [f"Tokens and time of a call: {_FIGURES[source]}." for source in sources]
    if estimate.cache_from == "none":
        lines.append("No pipeline was asked what it has in its cache: every answer counts as new.")
    if estimate.replicas_from == "assumed":
        lines.append("Time is for one replica of each stage.")
    return lines


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5_400 else f"{seconds / 3_600:.1f} h"
