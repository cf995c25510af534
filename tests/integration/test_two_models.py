"""Two models on one batch: who agrees, who is marked, and that every call is on the books."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from pathlib import Path

from running_pipeline import invented_words, running_pipeline, until

from services.kernel import topology
from services.kernel.contracts.card import CardsFinished
from services.kernel.contracts.provenance import CheckVerdict
from services.kernel.stream.reading import connected, messages_of
from services.simulator.settings import MODEL_ID

OTHER = "simulated/teacher-2"
TERMS = 24


def test_a_batch_with_a_second_opinion_end_to_end(tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("\n".join(invented_words(TERMS)) + "\n")
    settings = {"CARDFLOW_SECOND_OPINION__MODELS": json.dumps([OTHER])}
    flags = ("--latency-ms", "2", "--disagreement-rate", "0.4", "--seed", "3")
    with running_pipeline(tmp_path / "data", *flags, settings=settings) as pipeline:
        pipeline.run("submit", str(words), "--batch", "two")
        until(
            lambda: pipeline.json("status", "two", exit_code=None)["state"] == "completed",
            within_s=60,
            what="the batch ends",
        )
        audit = pipeline.json("audit", "two")
        stats = pipeline.simulator()
        [stage1] = [r for r in pipeline.replicas() if r.name == "stage1"]
        with urllib.request.urlopen(f"{stage1.http_url}/metrics", timeout=5) as answer:
            metrics = answer.read().decode()
        finished = asyncio.run(_finished(pipeline.nats_url))
        pipeline.run("export", "--batch", "two", "-o", str(tmp_path / "two.jsonl"))
    lines = [json.loads(line) for line in (tmp_path / "two.jsonl").read_text().splitlines()]
    marked = {line["term_id"] for line in lines if "check::second-opinion" in str(line)}
    assert 0 < len(marked) < TERMS
    assert (audit["balanced"], audit["complete"], audit["calls"]) == (True, True, 3 * TERMS)
    assert (stats["by_stage"]["analysis"], stats["duplicates"]) == (2 * TERMS, 0)
    for result, count in (("flagged", len(marked)), ("agreed", TERMS - len(marked))):
        name = f'cardflow_second_opinions_total{{result="{result}",service="stage1"}}'
        assert f"{name} {count:.1f}" in metrics
    assert {card.term_id for card in finished if _verdict(card).verdict == "flagged"} == marked
    for card in finished:
        if card.term_id in marked:
            told = _verdict(card).detail or ""
            assert MODEL_ID in told
            assert OTHER in told
            assert card.analysis.ipa in told


def _verdict(card: CardsFinished) -> CheckVerdict:
    return next(c for c in card.stage1.checks if c.check == "second_opinion")


async def _finished(url: str) -> list[CardsFinished]:
    async with connected(url) as nc:
        subjects = topology.finished_subject("two", "*")
        found = messages_of(nc.jetstream(), topology.CARDS.name, subjects)
        return [CardsFinished.from_bytes(message.data) async for message in found]
