"""The main job, with every process real: terms in, decks out, every term and call accounted for."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import nats
import nats.errors
import pytest
from nats.aio.client import Client
from nats.js.errors import APIError
from running_pipeline import Pipeline, invented_words, running_pipeline, shipped_terms, until

TERMS = 90


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    data = tmp_path_factory.mktemp("pipeline") / "data"
    with running_pipeline(data, "--latency-ms", "5", "--jitter-ms", "2") as running:
        yield running


@pytest.fixture(scope="module")
def word_list(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shipped words, words that nobody knows, one twice, and two rows that are no terms."""
    path = tmp_path_factory.mktemp("lists") / "words.csv"
    rows = [f"{row['term']},{row['type']}" for row in shipped_terms()[: TERMS - 30]]
    rows += [f"{word},noun" for word in invented_words(30)]
    path.write_text("term,type\n" + "\n".join([*rows, "책,noun", "hello,noun", "=1+1,noun"]) + "\n")
    return path


@pytest.fixture(scope="module")
def first_batch(pipeline: Pipeline, word_list: Path) -> str:
    pipeline.run("submit", str(word_list), "--batch", "first", "--deck", "Korean", "--wait")
    return "first"


async def connected(pipeline: Pipeline) -> Client:
    return await nats.connect(pipeline.nats_url)


def test_every_term_ends_finished_or_dead_with_a_reason(
    pipeline: Pipeline, first_batch: str
) -> None:
    status = pipeline.json("status", first_batch)
    assert status["state"] == "completed"
    assert (status["submitted"], status["accepted"]) == (TERMS + 3, TERMS)
    assert (status["finished"], status["dead"], status["in_flight"]) == (TERMS, 2, 0)
    assert status["calls"] == 2 * TERMS
    letters = pipeline.json("dead-letters", "list", "--batch", first_batch)
    assert sorted(letter["reason"] for letter in letters) == ["formula", "not_korean"]


def test_the_provider_saw_each_term_once_per_stage_and_the_audit_balances(
    pipeline: Pipeline, first_batch: str
) -> None:
    stats = pipeline.simulator()
    assert stats["by_stage"] == {"analysis": TERMS, "cards": TERMS}
    assert stats["duplicates"] == 0
    audit = pipeline.json("audit", first_batch)
    assert audit["balanced"]
    assert audit["complete"]


def test_the_same_list_as_another_batch_costs_no_call(
    pipeline: Pipeline, first_batch: str, word_list: Path
) -> None:
    before = pipeline.simulator()["calls"]
    pipeline.run("submit", str(word_list), "--batch", "second", "--wait")
    status = pipeline.json("status", "second")
    assert pipeline.simulator()["calls"] == before
    assert (status["finished"], status["cached"], status["calls"]) == (TERMS, 2 * TERMS, 0)
    assert status["cost_usd"] == 0
    pipeline.run("audit", "second")


def test_two_batches_at_once_pay_for_a_term_once(pipeline: Pipeline, tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("\n".join(invented_words(200)[100:]) + "\n")
    before = pipeline.simulator()["calls"]
    for batch in ("left", "right"):
        pipeline.run("submit", str(words), "--batch", batch)
    for batch in ("left", "right"):
        until(
            lambda batch=batch: pipeline.json("status", batch)["state"] == "completed",
            within_s=60,
            what=f"{batch} ends",
        )
    assert pipeline.simulator()["calls"] - before == 200
    pipeline.run("audit")


async def test_a_client_that_knows_nothing_of_us_can_publish(pipeline: Pipeline) -> None:
    nc = await connected(pipeline)
    cards = await nc.subscribe("cards.finished.raw.*")
    await nc.publish("terms.submit.raw", "꽃잎".encode())
    await nc.publish("terms.submit.raw", '{"term": "배02"}'.encode())
    events = [json.loads((await cards.next_msg(timeout=20)).data) for _ in range(2)]
    await nc.close()
    by_term = {event["term"]: event for event in events}
    assert by_term["꽃잎"]["analysis"]["ipa"] == "[k͈on.nip̚]"
    assert by_term["꽃잎"]["position"] == 1
    assert by_term["배"]["homonym"] == 2
    assert by_term["배"]["position"] == 2


BAD = [
    (b"\xff\xfe\xfa", "not_utf8"),
    (b'{"term": ' * 5000, "too_deep"),
    (b'{"term": "\xec\xb1\x85"', "not_json"),
    ("책\x00".encode(), "control_character"),
    (b"", "empty"),
    (b"   ", "empty"),
    (b"just words", "not_korean"),
    (b'{"position": 3}', "invalid_field"),
    ('{"term": "책", "position": 0}'.encode(), "invalid_field"),
    ("가".encode() * 101, "too_long"),
]


async def test_bad_input_is_a_dead_letter_that_says_why_and_costs_nothing(
    pipeline: Pipeline,
) -> None:
    before = pipeline.simulator()["calls"]
    nc = await connected(pipeline)
    js = nc.jetstream()
    for payload, _ in BAD:
        await js.publish("terms.submit.bad", payload)
    await js.publish("terms.submit.bad.*", "책".encode())
    await js.publish("terms.submit.bad", '{"term":"책","colour":"red"}'.encode())

    def letters() -> list[dict[str, str]]:
        return [
            *pipeline.json("dead-letters", "list", "--batch", "bad"),
            *pipeline.json("dead-letters", "list", "--batch", "unreadable"),
        ]

    wanted = sorted({reason for _, reason in BAD} | {"bad_batch_name"})
    until(
        lambda: sorted({letter["reason"] for letter in letters()}) == wanted,
        within_s=20,
        what="a dead letter for each",
    )
    until(
        lambda: pipeline.json("status", "bad")["finished"] == 1,
        within_s=20,
        what="the term with an unknown field is finished",
    )
    assert pipeline.simulator()["calls"] - before <= 2
    await nc.close()


async def test_a_payload_of_two_megabytes_is_refused_at_the_publisher(pipeline: Pipeline) -> None:
    nc = await connected(pipeline)
    with pytest.raises(nats.errors.MaxPayloadError):
        await nc.jetstream().publish("terms.submit.bad", b"x" * 2_000_000)
    with pytest.raises(APIError, match="message size exceeds maximum allowed"):
        await nc.jetstream().publish("terms.submit.bad", b"x" * 200_000)
    await nc.close()


def test_probes_and_metrics_answer_for_every_service(pipeline: Pipeline) -> None:
    import urllib.request

    for service in pipeline.endpoints["services"]:
        for probe in ("livez", "readyz", "metrics"):
            with urllib.request.urlopen(f"{service['http_url']}/{probe}", timeout=5) as answer:
                assert answer.status == 200


@pytest.mark.parametrize("name", ["deck.apkg", "deck.tsv", "deck.jsonl", "deck.nine.tsv"])
def test_a_deck_of_each_format_is_exported(
    pipeline: Pipeline, first_batch: str, tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    printed = pipeline.run("export", "--batch", first_batch, "-o", str(path))
    assert path.stat().st_size > 1000
    assert "cards" in printed


def test_the_store_holds_each_card_once_in_order(pipeline: Pipeline, first_batch: str) -> None:
    with sqlite3.connect(pipeline.data / "store" / "cards.sqlite") as db:
        rows = db.execute("SELECT term_id FROM terms WHERE batch = ?", (first_batch,)).fetchall()
    db.close()
    assert len(rows) == len(set(rows)) == TERMS


def test_a_second_up_on_the_same_folder_refuses(pipeline: Pipeline) -> None:
    second = Pipeline(pipeline.data)
    with pytest.raises(AssertionError, match=r"runs on .* already"):
        second.start()
    assert asyncio.run(_alive(pipeline))


async def _alive(pipeline: Pipeline) -> bool:
    nc = await connected(pipeline)
    await nc.close()
    return True
