"""A batch cancelled half done, every process real: no call after it, and nothing paid twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from running_pipeline import Pipeline, invented_words, running_pipeline, until

pytestmark = pytest.mark.timeout(240)

TERMS = 24
BATCH = "monday"
FLAGS = ("--latency-ms", "1000")
SLOWLY = {"CARDFLOW_STAGE1__CONCURRENCY": "1"}
"""So that a batch takes 25 seconds, and commands meet it half done on a slow machine too."""


def status(pipeline: Pipeline) -> dict[str, Any]:
    found: dict[str, Any] = pipeline.json("status", BATCH)
    return found


def finished(pipeline: Pipeline) -> list[dict[str, Any]]:
    count = str(status(pipeline)["finished"])
    lines = pipeline.run("watch", BATCH, "--from-start", "--json", "--count", count)
    return [json.loads(line) for line in lines.splitlines()]


def test_a_cancelled_batch_costs_nothing_more_and_goes_on_where_it_was(tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("\n".join(invented_words(TERMS)) + "\n")
    with running_pipeline(tmp_path / "data", *FLAGS, settings=SLOWLY) as pipeline:
        pipeline.run("submit", str(words), "--batch", BATCH)
        until(lambda: status(pipeline)["finished"] > 0, within_s=30, what="a few are finished")

        cancelled = pipeline.json("cancel", BATCH, "--note", "wrong list")["status"]
        calls = pipeline.simulator()["calls"]
        assert cancelled["state"] == "cancelled"
        assert cancelled["finished"] + cancelled["cancelled"] == TERMS
        assert cancelled["cancelled"] > 0
        assert (cancelled["dead"], cancelled["in_flight"]) == (0, 0)
        assert cancelled["calls"] == calls < 2 * TERMS
        audit = pipeline.json("audit")
        assert audit["complete"]
        assert audit["batches"][0]["cancelled"] == cancelled["cancelled"]
        assert audit["cost_usd"] == pytest.approx(cancelled["cost_usd"])

        pipeline.run("submit", str(words), "--batch", BATCH, exit_code=1)
        assert pipeline.json("cancel", BATCH)["outcome"] == "cancelled_before"
        assert pipeline.simulator()["calls"] == calls
        before = finished(pipeline)

        pipeline.control(latency_ms=0.0, jitter_ms=0.0)
        undone = pipeline.json("cancel", BATCH, "--undo")
        assert undone == {
            "batch": BATCH,
            "outcome": "undone",
            "replayed": cancelled["cancelled"],
            "failed": 0,
        }
        until(lambda: status(pipeline)["state"] == "completed", within_s=60, what="the batch ends")
        ended = status(pipeline)
        assert (ended["finished"], ended["cancelled"]) == (TERMS, 0)
        events = finished(pipeline)
        assert len({event["term_id"] for event in events}) == TERMS
        assert events[: len(before)] == before
        seen = pipeline.simulator()
        assert (seen["calls"], seen["duplicates"]) == (2 * TERMS, 0)
        pipeline.run("audit")
