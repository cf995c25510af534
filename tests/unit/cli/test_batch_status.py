"""What a batch's status says for given counts and events."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from services.cli.submitting.batch_status import (
    FIELDS,
    BatchEvents,
    BatchStatus,
    State,
    status_of,
    unknown_batch,
)
from services.cli.submitting.waiting import figures, status_bar
from services.kernel.contracts.base import Batch
from services.kernel.contracts.batch import BatchCancelled, BatchOpened, BatchProgress
from services.kernel.stream.reading import BatchCounts

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)


def counts(**values: Any) -> BatchCounts:
    defaults = {
        "submitted": 10,
        "accepted": 10,
        "analyzed": 10,
        "finished": 10,
        "refused": 0,
        "dead_later": 0,
        "ingested": True,
    }
    return BatchCounts(**{**defaults, **values})


def opened(expected: int = 10) -> BatchOpened:
    return BatchOpened(batch=Batch("b1"), expected=expected, opened_at=NOON)


def progress(finished: int = 10, dead: int = 0) -> BatchProgress:
    return BatchProgress(
        batch=Batch("b1"),
        current=finished + dead,
        total=10,
        progress=0.5,
        finished=finished,
        dead=dead,
        cached=3,
        calls=17,
        cost_usd=Decimal("0.25"),
        at=NOON,
    )


def status(
    figures: BatchCounts, events: BatchEvents | None = None, after_s: float = 10
) -> BatchStatus:
    return status_of("b1", figures, events or BatchEvents(), NOON + timedelta(seconds=after_s))


IN_FLIGHT = {"finished": 4, "dead_later": 1}
CUT = counts(**IN_FLIGHT, cancelled=5)
CANCELLED = BatchCancelled(batch=Batch("b1"), cancelled_at=NOON)


@pytest.mark.parametrize(
    ("figures", "events", "state"),
    [
        (counts(), BatchEvents(opened(), progress()), "completed"),
        (counts(finished=0, refused=10, accepted=0), BatchEvents(opened()), "completed"),
        (counts(), BatchEvents(opened(), progress(finished=9)), "running"),
        (counts(), BatchEvents(opened()), "running"),
        (counts(), BatchEvents(opened(11), progress()), "running"),
        (counts(ingested=False), BatchEvents(opened(), progress()), "running"),
        (counts(**IN_FLIGHT), BatchEvents(opened(), progress(4)), "running"),
        (counts(**IN_FLIGHT), BatchEvents(), "running"),
        (counts(), BatchEvents(None, progress()), "open"),
        (
            counts(**IN_FLIGHT),
            BatchEvents(opened(), progress(4), cancelled=CANCELLED),
            "cancelling",
        ),
        (counts(**IN_FLIGHT), BatchEvents(cancelled=CANCELLED), "cancelling"),
        (counts(), BatchEvents(opened(), progress(9), cancelled=CANCELLED), "cancelling"),
        (CUT, BatchEvents(opened(), progress(4), cancelled=CANCELLED), "cancelled"),
        (CUT, BatchEvents(opened(), progress(4)), "completed"),
        (counts(), BatchEvents(), "open"),
    ],
)
def test_the_state_is(figures: BatchCounts, events: BatchEvents, state: State) -> None:
    assert status(figures, events).state == state


@pytest.mark.parametrize(
    ("figures", "events", "eta_s"),
    [
        (counts(), BatchEvents(opened(), progress()), 0.0),  # completed
        (counts(**IN_FLIGHT), BatchEvents(), None),  # never opened
        (counts(finished=0), BatchEvents(opened()), None),  # no rate yet
        (counts(**IN_FLIGHT), BatchEvents(opened(), progress(4)), 10.0),  # 5 in 10 s, 5 to come
        (counts(**IN_FLIGHT), BatchEvents(opened(20), progress(4)), 30.0),  # and 10 to arrive
        (counts(**IN_FLIGHT), BatchEvents(opened(), progress(4), ended_before=4), 50.0),
        (counts(**IN_FLIGHT, cancelled=3), BatchEvents(opened(), progress(4)), 2.5),
        (CUT, BatchEvents(opened(), progress(4), cancelled=CANCELLED), 0.0),
        (counts(**IN_FLIGHT), BatchEvents(opened(), progress(4), ended_before=5), None),
    ],
)
def test_the_eta_is_at_the_rate_since_the_batch_was_opened(
    figures: BatchCounts, events: BatchEvents, eta_s: float | None
) -> None:
    assert status(figures, events).eta_s == eta_s


def test_a_clock_that_is_behind_gives_no_negative_eta() -> None:
    behind = status(counts(**IN_FLIGHT), BatchEvents(opened(), progress(4)), after_s=-5)
    assert behind.eta_s == 0.0


def test_money_and_calls_come_from_the_newest_progress_event() -> None:
    told = status(counts(), BatchEvents(opened(), progress()))
    assert (told.cached, told.calls, told.cost_usd) == (3, 17, Decimal("0.25"))
    untold = status(counts())
    assert (untold.cached, untold.calls, untold.cost_usd) == (0, 0, Decimal(0))


def test_the_json_has_the_documented_keys_in_their_order() -> None:
    shown = status(counts(**IN_FLIGHT, refused=2), BatchEvents(opened(), progress(4))).as_json()
    assert tuple(shown) == FIELDS
    assert shown["in_flight"] == 5
    assert shown["dead"] == 3
    assert shown["cancelled"] == 0
    assert shown["cost_usd"] == 0.25


@pytest.mark.parametrize(
    ("events", "is_final"),
    [
        (BatchEvents(opened(), progress(9, dead=1)), True),
        (BatchEvents(opened(), progress(9)), False),
        (BatchEvents(opened()), False),
    ],
)
def test_the_cost_is_final_when_it_covers_the_dead_too(events: BatchEvents, is_final: bool) -> None:
    assert status(counts(finished=9, dead_later=1), events).is_final is is_final


def test_the_cost_is_final_when_it_covers_the_cancelled_as_such() -> None:
    """A term that was cancelled and then finished has cost more."""
    covers = progress(4, dead=1).model_copy(update={"cancelled": 5, "current": 10})
    assert status(CUT, BatchEvents(opened(), covers)).is_final
    stale = counts(**IN_FLIGHT | {"finished": 9})
    assert not status(stale, BatchEvents(opened(), covers)).is_final
    assert not status(CUT, BatchEvents(opened(), progress(9, dead=1))).is_final


@pytest.mark.parametrize(
    ("known", "message"),
    [
        ([], "none yet"),
        (["a", "b"], "there are: a, b"),
        ([f"b{i}" for i in range(22)], "(and 2 others)"),
    ],
)
def test_an_unknown_batch_is_answered_with_those_that_exist(known: list[str], message: str) -> None:
    assert message in unknown_batch("x", known)


def test_the_bar_tells_rate_eta_and_cost() -> None:
    running = status(counts(**IN_FLIGHT), BatchEvents(opened(), progress(4)))
    assert figures(running, 2.4) == "1 dead · 2/s · eta 10 s · $0.2500"
    cut = status(CUT, BatchEvents(opened(), progress(4), cancelled=CANCELLED))
    assert figures(cut, 0) == "1 dead · 5 cancelled · 0/s · $0.2500"
    assert figures(status(counts(), BatchEvents(opened(), progress())), 0) == (
        "0 dead · 0/s · $0.2500"
    )


def test_the_bar_moves_with_each_status_and_is_silent_off_a_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with status_bar("b1") as show:
        for finished in (4, 10):
            show(status(counts(finished=finished), BatchEvents(opened(), progress(finished))))
    assert capsys.readouterr().err.strip() == ""
