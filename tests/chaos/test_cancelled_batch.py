"""Kills while a batch is cancelled and taken up again: every term is accounted for, all finish."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from running_pipeline import (
    Pipeline,
    cardflow,
    environment,
    invented_words,
    running_pipeline,
    until,
)

pytestmark = [pytest.mark.chaos, pytest.mark.long, pytest.mark.timeout(240)]

TERMS = 150
BATCH = "cut"
FLAGS = ("--latency-ms", "500", "--replicas", "stage1=2,stage2=2")
SLOWLY = {"CARDFLOW_STAGE1__CONCURRENCY": "1"}
"""So that a batch takes forty seconds, and commands meet it half done."""
ROLES = ("stage1", "stage2", "exporter", "nats-server")


def status(pipeline: Pipeline) -> dict[str, Any]:
    """Empty while the server is away."""
    try:
        found: dict[str, Any] = pipeline.json("status", BATCH, exit_code=None)
    except ValueError:
        return {}
    return found


def kill(pipeline: Pipeline, role: str) -> None:
    victim = pipeline.pid_of(role)
    os.kill(victim, signal.SIGKILL)
    until(lambda: pipeline.pid_of(role) != victim, within_s=20, what=f"{role} is started again")


def test_kills_while_a_batch_is_cancelled_and_taken_up_again_lose_and_double_nothing(
    tmp_path: Path,
) -> None:
    words = tmp_path / "words.txt"
    words.write_text("\n".join(invented_words(TERMS)) + "\n")
    with running_pipeline(tmp_path / "data", *FLAGS, settings=SLOWLY) as pipeline:
        pipeline.run("submit", str(words), "--batch", BATCH)
        until(lambda: status(pipeline).get("finished", 0) > 0, within_s=40, what="a few are done")
        pipeline.run("cancel", BATCH, "--no-wait")
        for role in ROLES:
            kill(pipeline, role)
        until(lambda: status(pipeline).get("state") == "cancelled", within_s=90, what="it ends")
        ended = status(pipeline)
        assert ended["finished"] + ended["cancelled"] == TERMS
        assert ended["cancelled"] > 0
        pipeline.run("audit")

        undo = cardflow("cancel", BATCH, "--undo", "--rate", "20", "--data", str(pipeline.data))
        with subprocess.Popen(undo, env=environment()) as cut_off:
            until(
                lambda: status(pipeline).get("cancelled", TERMS) < ended["cancelled"],
                within_s=30,
                what="the first are sent again",
            )
            cut_off.kill()
        kill(pipeline, "stage1")
        pipeline.run("cancel", BATCH, "--undo")
        until(lambda: status(pipeline).get("state") == "completed", within_s=90, what="all end")
        assert status(pipeline)["finished"] == TERMS
        pipeline.run("audit")
