"""A provider that fails and lies: every term ends, and every call is on the books."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from running_pipeline import Pipeline, invented_words, running_pipeline, until

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(180)]

TERMS = 80
FLAGS = ("--latency-ms", "5", "--error-rate", "0.15", "--malformed-rate", "0.15", "--seed", "7")


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    data = tmp_path_factory.mktemp("faults") / "data"
    with running_pipeline(data, *FLAGS, settings={"CARDFLOW_RETRY__BASE_S": "0.1"}) as running:
        yield running


def test_every_term_ends_and_the_books_agree_with_the_providers(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    words = tmp_path / "words.txt"
    words.write_text("\n".join(invented_words(TERMS)) + "\n")
    pipeline.run("submit", str(words), "--batch", "faults")
    until(lambda: _completed(pipeline), within_s=120, what="the batch ends")
    status = pipeline.json("status", "faults")
    assert status["finished"] + status["dead"] == TERMS
    assert status["finished"] >= 0.9 * TERMS
    for letter in pipeline.json("dead-letters", "list", "--batch", "faults"):
        assert letter["reason"]
    stats = pipeline.simulator()
    assert stats["errors"]
    assert stats["malformed"]
    audit = pipeline.json("audit", "faults")
    assert audit["balanced"]
    assert audit["complete"]


def _completed(pipeline: Pipeline) -> bool:
    return pipeline.json("status", "faults", exit_code=None)["state"] == "completed"
