"""Progress is a function of what streams and store hold."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from services.exporter.progress import is_complete, progress_of
from services.exporter.store import BatchTotals
from services.kernel.contracts.base import Batch
from services.kernel.contracts.batch import BatchOpened
from services.kernel.stream.reading import BatchCounts

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
NOTHING = BatchTotals(finished=0, calls=0, cached=0, cost_usd=Decimal(0))


def counts(**changes: Any) -> BatchCounts:
    values: dict[str, Any] = {
        "submitted": 10,
        "accepted": 8,
        "analyzed": 7,
        "finished": 6,
        "refused": 2,
        "dead_later": 2,
        "ingested": True,
    }
    return BatchCounts(**{**values, **changes})


def stored(finished: int) -> BatchTotals:
    return BatchTotals(finished=finished, calls=9, cached=3, cost_usd=Decimal("0.12"))


def opened(expected: int) -> BatchOpened:
    return BatchOpened(batch=Batch("b1"), expected=expected, opened_at=NOW)


def test_progress_counts_stored_cards_and_dead_letters_of_all_services() -> None:
    dead = BatchTotals(finished=0, calls=4, cached=1, cost_usd=Decimal("0.03"))
    event = progress_of("b1", counts(), stored(5), dead, NOW)
    assert (event.finished, event.dead, event.current, event.total) == (5, 4, 9, 10)
    assert (event.calls, event.cached, event.cost_usd) == (13, 4, Decimal("0.15"))
    assert event.progress == pytest.approx(0.9)


def test_cancelled_terms_have_ended_and_what_they_cost_counts() -> None:
    lost = BatchTotals(finished=0, calls=1, cached=0, cost_usd=Decimal("0.01"))
    cut = counts(finished=4, refused=0, dead_later=1, cancelled=3)
    event = progress_of("b1", cut, stored(4), lost, NOW)
    assert (event.finished, event.dead, event.cancelled, event.current) == (4, 1, 3, 8)
    assert (event.progress, event.cost_usd) == (1.0, Decimal("0.13"))


def test_until_all_is_ingested_the_total_is_what_was_submitted() -> None:
    early = counts(accepted=3, refused=0, dead_later=0, finished=0, ingested=False)
    assert progress_of("b1", early, NOTHING, NOTHING, NOW).total == 10


def test_an_empty_batch_has_no_progress_and_does_not_divide_by_zero() -> None:
    empty = counts(submitted=0, accepted=0, analyzed=0, finished=0, refused=0, dead_later=0)
    event = progress_of("b1", empty, NOTHING, NOTHING, NOW)
    assert (event.current, event.total, event.progress) == (0, 0, 0.0)


def test_progress_never_passes_one_when_counts_are_a_moment_apart() -> None:
    event = progress_of("b1", counts(accepted=4, refused=0), stored(6), NOTHING, NOW)
    assert event.progress == 1.0


@pytest.mark.parametrize(
    ("changes", "in_store", "declared", "complete"),
    [
        ({}, 6, 10, True),
        ({}, 6, None, False),  # nobody said how many there will be
        ({}, 6, 11, False),  # one has not arrived
        ({}, 5, 10, False),  # one is not stored yet
        ({"ingested": False}, 6, 10, False),
        ({"finished": 5}, 5, 10, False),  # one is in flight
        ({"finished": 5, "cancelled": 1}, 5, 10, True),
        ({"finished": 4, "cancelled": 1}, 4, 10, False),
    ],
)
def test_a_batch_is_complete_when_all_declared_terms_have_ended_and_are_stored(
    changes: dict[str, Any], in_store: int, declared: int | None, complete: bool
) -> None:
    declaration = None if declared is None else opened(declared)
    assert is_complete(counts(**changes), stored(in_store), declaration) is complete
