"""Dead letters sent again by two people at once beside a batch at work: each once, at the limit."""

from __future__ import annotations

import json
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from running_pipeline import (
    Pipeline,
    cardflow,
    environment,
    invented_words,
    running_pipeline,
    until,
)

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]

SIMULATOR_STAGES = {"analysis": "STAGE1", "cards": "STAGE2"}
PER_MINUTE = 900
"""Of each stage: 15 a second, well under what it could do, so that the limit is what holds."""
SLACK_CALLS = 5
"""The one more of the limiter, and a third of a second for answers that come late."""

Counted = dict[str, int]


class Sample(NamedTuple):
    """Answers counted by stage, at some time between two."""

    begin_s: float
    end_s: float
    answered: Counted


def sample(pipeline: Pipeline) -> Sample:
    begin_s = time.monotonic()
    base_url = pipeline.endpoints["provider"]["base_url"].removesuffix("/api/v1")
    with urllib.request.urlopen(f"{base_url}/stats?terms=0", timeout=5) as answer:
        by_stage: Counted = json.load(answer)["by_stage"]
    return Sample(begin_s, time.monotonic(), by_stage)


@contextmanager
def sampled(pipeline: Pipeline) -> Iterator[list[Sample]]:
    """What the provider has answered, several times a second, as long as the block runs."""
    samples: list[Sample] = []
    stop = threading.Event()

    def look() -> None:
        while not stop.wait(0.2):
            samples.append(sample(pipeline))

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield samples
    finally:
        stop.set()
        watcher.join()


def most_over_the_limit(samples: list[Sample], stage: str) -> float:
    """By how many answers the fullest of all windows up to a minute is over the limit."""
    return max(
        later.answered[stage]
        - earlier.answered[stage]
        - (later.end_s - earlier.begin_s) * PER_MINUTE / 60
        for i, earlier in enumerate(samples)
        for later in samples[i + 1 :]
        if later.begin_s - earlier.end_s <= 60
    )


def replay_all(pipeline: Pipeline, batch: str) -> subprocess.Popen[bytes]:
    """A person who sends all of the batch's dead letters again."""
    command = cardflow("dead-letters", "replay", "--batch", batch, "--yes", "--rate", "200")
    place = ("--data", str(pipeline.data), "--json")
    return subprocess.Popen([*command, *place], stdout=subprocess.PIPE, env=environment())


def outcomes_of(process: subprocess.Popen[bytes]) -> list[str]:
    printed, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    return [row["outcome"] for row in json.loads(printed)]


def submit(pipeline: Pipeline, path: Path, batch: str, words: list[str]) -> None:
    path.write_text("\n".join(words) + "\n")
    pipeline.run("submit", str(path), "--batch", batch)


def state(pipeline: Pipeline, batch: str) -> dict[str, Any]:
    found: dict[str, Any] = pipeline.json("status", batch)
    return found


LONG = [pytest.mark.long, pytest.mark.timeout(900)]


@pytest.mark.parametrize("terms", [50, pytest.param(1_000, marks=LONG)])
def test_dead_letters_replayed_by_two_at_once_and_once_more_are_replayed_once(
    tmp_path: Path, terms: int
) -> None:
    words = invented_words(2 * terms)
    settings = {
        "CARDFLOW_RETRY__MAX_ATTEMPTS": "1",
        "CARDFLOW_STAGE1__CONCURRENCY": "64",
        **{
            f"CARDFLOW_{stage}__REQUESTS_PER_MINUTE": str(PER_MINUTE)
            for stage in SIMULATOR_STAGES.values()
        },
    }
    flags = ("--latency-ms", "20", "--jitter-ms", "0")
    with running_pipeline(tmp_path / "data", *flags, settings=settings) as pipeline:
        pipeline.control(malformed_rate=1.0, malformed_kinds=["missing_field"])
        submit(pipeline, tmp_path / "dead.txt", "dead", words[:terms])
        until(lambda: state(pipeline, "dead")["dead"] == terms, within_s=200, what="all died")
        before = pipeline.simulator()["terms"]["analysis"]
        assert len(before) == terms
        pipeline.control(malformed_rate=0.0)

        with sampled(pipeline) as samples:
            submit(pipeline, tmp_path / "beside.txt", "beside", words[terms:])
            both = [replay_all(pipeline, "dead") for _ in range(2)]
            outcomes = [outcome for process in both for outcome in outcomes_of(process)]
            assert outcomes_of(replay_all(pipeline, "dead")) == []
            for batch in ("dead", "beside"):
                until(
                    lambda batch=batch: state(pipeline, batch)["state"] == "completed",
                    within_s=400,
                    what=f"{batch} ends",
                )
        assert outcomes.count("replayed") == terms
        assert set(outcomes) <= {"replayed", "replayed_before"}
        for batch in ("dead", "beside"):
            ended = state(pipeline, batch)
            assert (ended["finished"], ended["dead"]) == (terms, 0)
        after = pipeline.simulator()["terms"]
        assert {term: after["analysis"][term] - calls for term, calls in before.items()} == (
            dict.fromkeys(before, 1)
        )
        assert len(after["analysis"]) == 2 * terms
        assert set(after["cards"].values()) == {1}
        for stage in SIMULATOR_STAGES:
            assert most_over_the_limit(samples, stage) <= SLACK_CALLS
        pipeline.run("audit")
