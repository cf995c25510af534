"""Priorities in a real pipeline, as the order in which cards come: no clock is asked."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar, get_args

import nats
import pytest
from nats.js import JetStreamContext
from running_pipeline import Pipeline, invented_words, running_pipeline, until

from services.kernel.contracts.term import Priority, TermSubmitted
from services.kernel.stream.reading import count_batch, messages_of

BACKLOG = 20
SETTINGS = {"CARDFLOW_STAGE1__CONCURRENCY": "1", "CARDFLOW_STAGE2__CONCURRENCY": "1"}
FLAGS = ("--latency-ms", "30", "--jitter-ms", "0")


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """A consumer has one term in hand at a time."""
    data = tmp_path_factory.mktemp("priorities") / "data"
    with running_pipeline(data, *FLAGS, settings=SETTINGS) as running:
        yield running


@pytest.fixture(scope="module")
def words() -> Iterator[str]:
    """Words that no other submission has."""
    return iter(invented_words(1_000))


def submit(
    pipeline: Pipeline, words: Iterator[str], count: int, batch: str, priority: Priority = "normal"
) -> None:
    async def publish(js: JetStreamContext) -> None:
        for _ in range(count):
            event = TermSubmitted(term=next(words), priority=priority)
            await js.publish(f"terms.submit.{batch}", event.to_bytes())

    on_streams(pipeline, publish)


T = TypeVar("T")


def on_streams(pipeline: Pipeline, work: Callable[[JetStreamContext], Awaitable[T]]) -> T:
    async def session() -> T:
        nc = await nats.connect(pipeline.nats_url)
        try:
            return await work(nc.jetstream())
        finally:
            await nc.close()

    return asyncio.run(session())


def finished(pipeline: Pipeline, *batches: str) -> list[str]:
    """The batch of each finished term of these, in the order in which they came."""

    async def read(js: JetStreamContext) -> list[str]:
        subjects = [m.subject async for m in messages_of(js, "CARDS", "cards.finished.>")]
        return [subject.split(".")[2] for subject in subjects]

    return [batch for batch in on_streams(pipeline, read) if batch in batches]


def until_all(pipeline: Pipeline, count: str, wanted: int, *batches: str) -> None:
    async def counted(js: JetStreamContext) -> bool:
        counts = [await count_batch(js, batch) for batch in batches]
        return all(getattr(each, count) == wanted for each in counts)

    until(lambda: on_streams(pipeline, counted), within_s=60, what=f"{wanted} {count}")


def test_an_urgent_term_overtakes_the_backlog_of_both_stages(
    pipeline: Pipeline, words: Iterator[str]
) -> None:
    pipeline.run("pause", "stage2")
    submit(pipeline, words, BACKLOG, "first")
    until_all(pipeline, "analyzed", BACKLOG, "first")
    pipeline.run("pause", "stage1")
    submit(pipeline, words, BACKLOG, "second")
    submit(pipeline, words, 1, "now", "urgent")
    until_all(pipeline, "accepted", 1, "now")
    pipeline.run("resume")
    until_all(pipeline, "finished", BACKLOG, "first", "second")
    order = finished(pipeline, "first", "second", "now")
    assert len(order) == 2 * BACKLOG + 1
    # Without its lanes it would come after all of the first batch.
    assert order.index("now") <= BACKLOG // 2


def test_bulk_terms_hold_up_none_that_come_later_and_get_on_meanwhile(
    pipeline: Pipeline, words: Iterator[str]
) -> None:
    pipeline.run("pause", "stage1", "stage2")
    submit(pipeline, words, BACKLOG, "bulk", "bulk")
    until_all(pipeline, "accepted", BACKLOG, "bulk")
    submit(pipeline, words, BACKLOG, "normal")
    until_all(pipeline, "accepted", BACKLOG, "normal")
    pipeline.run("resume")
    until_all(pipeline, "finished", BACKLOG, "bulk", "normal")
    order = finished(pipeline, "normal", "bulk")
    last_normal = max(place for place, batch in enumerate(order) if batch == "normal")
    bulk_before = order[:last_normal].count("bulk")
    # In the order of arrival it would be all of them; one in ten is let through.
    assert 1 <= bulk_before <= BACKLOG // 2


def test_the_same_term_with_every_priority_is_one_card_and_one_call_a_stage(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    before = pipeline.simulator()["calls"]
    lines = [
        json.dumps({"term": "오로라", "priority": priority}, ensure_ascii=False)
        for priority in ("normal", "urgent", "bulk", "urgent", "normal")
    ]
    (tmp_path / "words.jsonl").write_text("\n".join(lines))
    pipeline.run("submit", str(tmp_path / "words.jsonl"), "--batch", "same", "--wait")
    assert finished(pipeline, "same") == ["same"]
    assert pipeline.simulator()["calls"] == before + 2
    pipeline.run("audit")


@pytest.mark.long
def test_kills_and_lost_lanes_lose_no_term_and_pay_for_none_twice(
    pipeline: Pipeline, words: Iterator[str]
) -> None:
    before = pipeline.simulator()["calls"]
    batches = [f"killed-{priority}" for priority in get_args(Priority)]
    for batch, priority in zip(batches, get_args(Priority), strict=True):
        submit(pipeline, words, BACKLOG, batch, priority)
    until(lambda: pipeline.simulator()["calls"] >= before + BACKLOG, within_s=60, what="calls")
    on_streams(pipeline, lambda js: js.delete_stream("LANES"))
    for service in ("ingest", "stage1", "stage2"):
        os.kill(pipeline.pid_of(service), signal.SIGKILL)
    # A stream that is missing has nothing of a batch to count.
    until(lambda: "drift.repaired" in "".join(pipeline.printed), within_s=60, what="repair")
    until_all(pipeline, "finished", BACKLOG, *batches)
    assert pipeline.json("audit")["balanced"]
    in_the_air = 2 * 3  # Two stages, a call of each of their consumers.
    assert pipeline.simulator()["calls"] - before <= 2 * 3 * BACKLOG + in_the_air
