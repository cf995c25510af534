"""The store: what was put is kept once, newest, in order, and exact to the last digit."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from card_samples import NOON, after, card, finished, stage

from services.exporter import schema
from services.exporter.store import BatchTotals, Store
from services.exporter.stored import StoredCard, utc_text
from services.kernel.contracts.card import CardsFinished


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "store 100%?.sqlite"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[Store]:
    async with Store.open(path) as opened:
        yield opened


async def batch(store: Store, name: str = "b1") -> list[StoredCard]:
    return [card async for card in store.cards_of_batch(name)]


async def deck(store: Store, name: str = "Korean") -> list[StoredCard]:
    return [card async for card in store.cards_of_deck(name)]


async def test_a_card_comes_back_with_all_that_a_deck_needs(store: Store) -> None:
    made = card(1, "Hanja", tags=("term:책", "a, b"), honorific_level="polite", term_number=7)
    event = finished("배", homonym=2, position=7, cards=[made], finished_at=after(1.5))
    await store.put([event])
    [kept] = await batch(store)
    assert kept == StoredCard(
        batch=event.batch,
        deck="Korean",
        term_id=event.term_id,
        term="배",
        homonym=2,
        position=7,
        model="test/writer",
        finished_at=after(1.5),
        ordinal=1,
        card=made,
    )


async def test_the_whole_event_is_kept_once_a_term(store: Store, path: Path) -> None:
    event = finished(cards=[card(1), card(2, "Hanja")])
    await store.put([event])
    with sqlite3.connect(path) as db:
        [(kept,)] = db.execute("SELECT event FROM terms").fetchall()
    db.close()
    assert CardsFinished.model_validate_json(kept) == event


async def test_cards_come_by_position_then_submission_then_their_own_position(
    store: Store,
) -> None:
    events = [
        finished("가", position=1, submitted_at=after(5), cards=[card(1), card(2, "Hanja")]),
        finished("나", position=1, submitted_at=after(6)),
        finished("다", position=2, cards=[card(3, "Grammar"), card(1, "Usage-Comparison")]),
        finished("라", position=10, submitted_at=after(1)),
    ]
    shuffled = random.Random(1).sample(events, len(events))
    for event in shuffled:
        await store.put([event])
    order = [(kept.term, kept.card.tab_name) for kept in await deck(store)]
    assert order == [
        ("가", "Scene"),
        ("가", "Hanja"),
        ("나", "Scene"),
        ("다", "Usage-Comparison"),
        ("다", "Grammar"),
        ("라", "Scene"),
    ]
    assert [(k.term, k.card.tab_name) for k in await batch(store)] == order


async def test_cards_of_one_type_are_counted_from_1(store: Store) -> None:
    cards = [card(1), card(2, "Example"), card(3, "Example"), card(4, "Example")]
    await store.put([finished(cards=cards)])
    assert [kept.ordinal for kept in await batch(store)] == [1, 1, 2, 3]


async def test_cards_that_share_a_position_are_all_kept(store: Store) -> None:
    await store.put([finished(cards=[card(1, front="one?"), card(1, front="two?")])])
    kept = await batch(store)
    assert [(k.card.position, k.card.front) for k in kept] == [(1, "one?"), (2, "two?")]


async def test_putting_again_changes_nothing(store: Store) -> None:
    events = [finished("책", cards=[card(1), card(2, "Hanja")]), finished("물", position=2)]
    await store.put(events)
    before = await batch(store), await store.batch_totals("b1")
    await store.put([*events, *events])
    assert (await batch(store), await store.batch_totals("b1")) == before


async def test_nothing_to_put_is_no_error(store: Store) -> None:
    await store.put([])
    assert await store.batches() == []


OLD = finished(
    cards=[card(1, front="old?"), card(2, "Hanja")], stage2=stage(cost_usd="1"), finished_at=NOON
)
NEW = finished(
    cards=[card(1, front="new?")], stage2=stage(cost_usd="3"), finished_at=after(0.000001)
)


@pytest.mark.parametrize(
    "puts", [[[OLD], [NEW]], [[NEW], [OLD]], [[OLD, NEW]], [[NEW, OLD]], [[NEW], [OLD], [NEW]]]
)
async def test_the_newest_cards_of_a_term_win_whole(
    store: Store, puts: list[list[CardsFinished]]
) -> None:
    for events in puts:
        await store.put(events)
    assert [kept.card.front for kept in await batch(store)] == ["new?"]
    assert await store.batch_totals("b1") == BatchTotals(1, 2, 0, Decimal(3))


async def test_totals_are_exact_and_of_one_batch(store: Store) -> None:
    costs = ["0.1", "0.2", "0.2", "0.0000000000123456789", "0"]
    await store.put(
        [
            finished(
                str(number),
                stage1=stage(cost_usd=cost, calls=2),
                stage2=stage(cost_usd="0.000001", calls=0, cached=True),
            )
            for number, cost in enumerate(costs)
        ]
    )
    await store.put([finished("물", batch="b2", stage1=stage(cost_usd="99"))])
    assert await store.batch_totals("b1") == BatchTotals(
        finished=5, calls=10, cached=5, cost_usd=Decimal("0.5000050000123456789")
    )


async def test_an_unknown_batch_has_totals_of_zero_and_no_cards(store: Store) -> None:
    assert await store.batch_totals("none") == BatchTotals(0, 0, 0, Decimal(0))
    assert await batch(store, "none") == []
    assert await deck(store, "none") == []


async def test_batches_and_decks_are_named_once_each(store: Store) -> None:
    await store.put(
        [
            finished("가", batch="b2", deck="TOPIK::1"),
            finished("나", batch="b2", deck="Korean"),
            finished("가", batch="b1", deck="Korean"),
        ]
    )
    assert await store.batches() == ["b1", "b2"]
    assert await store.decks() == ["Korean", "TOPIK::1"]


async def test_a_deck_has_each_term_once_from_the_batch_that_finished_it_last(
    store: Store,
) -> None:
    await store.put(
        [
            finished("책", batch="b1", cards=[card(front="old?"), card(2, "Hanja")]),
            finished("책", batch="b2", cards=[card(front="new?")], finished_at=after(1)),
            finished("책", batch="b3", deck="Other", finished_at=after(9)),
            finished("물", batch="b1", position=2, cards=[card(front="b1?")]),
            finished("물", batch="b2", position=2, cards=[card(front="b2?")]),
            finished("배", batch="b1", position=3, homonym=1),
            finished("배", batch="b2", position=3, homonym=2),
        ]
    )
    kept = [(k.term, k.homonym, k.batch, k.card.front) for k in await deck(store)]
    assert kept[:2] == [("책", None, "b2", "new?"), ("물", None, "b2", "b2?")]
    assert {(term, homonym) for term, homonym, *_ in kept[2:]} == {("배", 1), ("배", 2)}
    assert (await batch(store, "b1"))[0].card.front == "old?"


def revised(term: str, number: int, *, front: str, **values: Any) -> CardsFinished:
    """The term as the revision of b1 with this number has it."""
    return finished(
        term,
        batch=f"b1-r{number}",
        revises="b1",
        revision=number,
        cards=[card(front=front)],
        **{"submitted_at": after(number), "finished_at": after(number), **values},
    )


REVISED = [
    finished("책", position=1, cards=[card(front="책 1?"), card(2, "Hanja")]),
    finished("물", position=2, cards=[card(front="물 1?")]),
    finished("눈", position=3, cards=[card(front="눈 1?")]),
    revised("책", 2, position=1, front="책 2?"),
    revised("물", 2, position=2, front="물 2?"),
    revised("물", 10, position=2, front="물 10?"),
    finished("물", batch="b9", deck="Other", position=1, finished_at=after(99)),
]


@pytest.mark.parametrize("seed", range(5))
async def test_a_batch_has_each_term_as_its_newest_revision_has_it(store: Store, seed: int) -> None:
    for event in random.Random(seed).sample(REVISED, len(REVISED)):
        await store.put([event])
    assert [kept.card.front for kept in await batch(store)] == ["책 2?", "물 10?", "눈 1?"]
    assert [kept.batch for kept in await batch(store)] == ["b1-r2", "b1-r10", "b1"]
    assert [kept.card.front for kept in await deck(store)] == ["책 2?", "물 10?", "눈 1?"]


async def test_a_revision_by_its_own_name_has_its_own_cards_alone(store: Store) -> None:
    await store.put(REVISED)
    assert [kept.card.front for kept in await batch(store, "b1-r2")] == ["책 2?", "물 2?"]
    assert [kept.card.front for kept in await batch(store, "b1-r10")] == ["물 10?"]


async def test_the_number_of_a_revision_decides_and_not_when_it_was_finished(
    store: Store,
) -> None:
    late = revised("책", 2, front="late?", finished_at=after(60))
    await store.put([late, revised("책", 3, front="newest?", finished_at=after(30))])
    assert [kept.card.front for kept in await batch(store)] == ["newest?"]
    assert [kept.card.front for kept in await deck(store)] == ["newest?"]


async def test_what_was_made_anew_does_not_hide_another_batchs_cards(store: Store) -> None:
    other = finished("책", batch="b2", cards=[card(front="b2?")], finished_at=after(40))
    late = revised("책", 2, front="late?", finished_at=after(60))
    await store.put([late, revised("책", 3, front="newest?", finished_at=after(30)), other])
    assert [kept.card.front for kept in await deck(store)] == ["b2?"]
    assert [kept.card.front for kept in await batch(store)] == ["newest?"]


async def test_a_batch_knows_what_it_revises(store: Store) -> None:
    await store.put(REVISED)
    assert [await store.root_of(name) for name in ("b1", "b1-r2", "b1-r10", "none")] == [
        "b1",
        "b1",
        "b1",
        "none",
    ]


async def test_a_batch_that_is_only_named_like_a_revision_is_none(store: Store) -> None:
    await store.put([finished("책"), finished("책", batch="b1-r2", cards=[card(front="own?")])])
    assert await store.root_of("b1-r2") == "b1-r2"
    assert [kept.batch for kept in await batch(store)] == ["b1"]
    assert [kept.card.front for kept in await batch(store, "b1-r2")] == ["own?"]


async def test_the_totals_of_a_batch_leave_its_revisions_out(store: Store) -> None:
    await store.put(REVISED)
    assert (await store.batch_totals("b1")).finished == 3
    assert (await store.batch_totals("b1-r2")).finished == 2


async def test_a_stream_shows_one_moment_and_blocks_no_put(store: Store) -> None:
    await store.put([finished(str(n), position=n) for n in range(1, 601)])
    async with aclosing(store.cards_of_batch("b1")) as cards:
        await anext(cards)
        await store.put([finished("new", position=601)])
        rest = [kept.term async for kept in cards]
    assert len(rest) == 599
    assert (await store.batch_totals("b1")).finished == 601


@pytest.mark.parametrize(
    "query", [schema.CARDS_OF_BATCH, schema.CARDS_OF_REVISION, schema.CARDS_OF_DECK]
)
async def test_terms_are_read_in_the_order_of_an_index(store: Store, query: str) -> None:
    plan = [str(step[3]) for step in await store._all(f"EXPLAIN QUERY PLAN {query}", "x")]
    sorts = [step for step in plan if "TEMP B-TREE" in step and "ORDER BY" in step]
    assert all("RIGHT PART" in step or "LAST" in step for step in sorts)


async def test_newer_revisions_are_looked_for_by_an_index(store: Store) -> None:
    plan = [str(s[3]) for s in await store._all(f"EXPLAIN QUERY PLAN {schema.CARDS_OF_BATCH}", "x")]
    assert any("SEARCH t USING INDEX terms_by_root" in step for step in plan)
    assert any("COVERING INDEX newest_revisions (revises=? AND term_id=?" in step for step in plan)
    [step] = await store._all(f"EXPLAIN QUERY PLAN {schema.REVISED_BY}", "x")
    assert "COVERING INDEX revisions" in step[3]


async def test_totals_read_an_index_alone(store: Store) -> None:
    [step] = await store._all(f"EXPLAIN QUERY PLAN {schema.TOTALS}", "x")
    assert "COVERING INDEX totals" in step[3]


async def test_tasks_at_once_see_whole_transactions_only(store: Store) -> None:
    async def put(start: int) -> None:
        await store.put([finished(str(n), position=n) for n in range(start, start + 20)])

    async def watch() -> set[int]:
        return {(await store.batch_totals("b1")).finished % 20 for _ in range(50)}

    async with asyncio.TaskGroup() as group:
        for start in range(1, 101, 20):
            group.create_task(put(start))
        watching = group.create_task(watch())
    assert watching.result() == {0}
    assert (await store.batch_totals("b1")).finished == 100


async def test_a_cancelled_put_leaves_nothing_and_blocks_nobody(store: Store) -> None:
    task = asyncio.create_task(store.put([finished(str(n), position=n + 1) for n in range(500)]))
    while not store._db.in_transaction:  # noqa: ASYNC110 - SQLite sets no event
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await store.batch_totals("b1")).finished == 0
    await store.put([finished()])
    assert len(await batch(store)) == 1


@pytest.mark.parametrize(
    ("at", "text"),
    [
        (datetime.fromisoformat("2026-05-04T21:00:00+09:00"), "2026-05-04T12:00:00.000000+00:00"),
        (datetime.fromisoformat("2026-05-04T12:00:00"), "2026-05-04T12:00:00.000000+00:00"),
    ],
)
def test_times_are_kept_in_utc(at: datetime, text: str) -> None:
    assert utc_text(at) == text
