"""Kills at random moments: nothing lost, nothing twice, everybody back without help."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from running_pipeline import Pipeline, invented_words, running_pipeline, until

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(180)]

TERMS = 250
# Latencies are such that a batch takes several seconds, so that kills and stops meet it half done.
ROLES = ("stage1", "stage2", "ingest", "exporter", "simulator", "nats-server")


@pytest.fixture
def word_list(tmp_path: Path) -> Path:
    path = tmp_path / "words.txt"
    path.write_text("\n".join(invented_words(TERMS)) + "\n")
    return path


def finished(pipeline: Pipeline, batch: str) -> int:
    status = pipeline.json("status", batch, exit_code=None)
    return int(status["finished"])


def test_kill_9_of_each_process_in_turn_loses_and_doubles_nothing(
    tmp_path: Path, word_list: Path
) -> None:
    flags = ("--latency-ms", "600", "--replicas", "stage1=2,stage2=2")
    with running_pipeline(tmp_path / "data", *flags) as pipeline:
        pipeline.run("submit", str(word_list), "--batch", "killed")
        for role in ROLES:
            victim = pipeline.pid_of(role)
            os.kill(victim, signal.SIGKILL)
            until(
                lambda role=role, victim=victim: pipeline.pid_of(role) != victim,
                within_s=20,
                what=f"{role} is started again",
            )
        until(lambda: _state(pipeline, "killed") == "completed", within_s=90, what="the batch ends")
        status = pipeline.json("status", "killed")
        assert (status["finished"], status["dead"]) == (TERMS, 0)
        pipeline.run("audit")


def test_sigterm_in_the_middle_exits_0_and_the_next_up_goes_on(
    tmp_path: Path, word_list: Path
) -> None:
    data = tmp_path / "data"
    flags = ("--latency-ms", "400", "--jitter-ms", "20")
    with running_pipeline(data, *flags) as pipeline:
        pipeline.run("submit", str(word_list), "--batch", "stopped")
        until(lambda: 0 < finished(pipeline, "stopped") < TERMS, within_s=30, what="a few are done")
        assert pipeline.stop(signal.SIGTERM, within_s=40) == 0
        assert not (data / "endpoints.json").exists()
    with running_pipeline(data, *flags) as again:
        until(lambda: _state(again, "stopped") == "completed", within_s=60, what="the batch ends")
        audit = again.json("audit", "stopped")
        assert audit["balanced"]
        assert again.json("status", "stopped")["calls"] == 2 * TERMS


def test_the_supervisor_killed_leaves_nobody_behind_and_the_next_up_goes_on(
    tmp_path: Path, word_list: Path
) -> None:
    data = tmp_path / "data"
    with running_pipeline(data, "--latency-ms", "400") as pipeline:
        pipeline.run("submit", str(word_list), "--batch", "orphans")
        pids = [pipeline.pid_of(role) for role in ROLES]
        pipeline.stop(signal.SIGKILL)
        until(lambda: not any(map(_runs, pids)), within_s=40, what="the children end, too")
    with running_pipeline(data, "--latency-ms", "20") as again:
        until(lambda: _state(again, "orphans") == "completed", within_s=60, what="the batch ends")
        assert again.json("status", "orphans")["finished"] == TERMS


def _state(pipeline: Pipeline, batch: str) -> str:
    return str(pipeline.json("status", batch, exit_code=None)["state"])


def _runs(pid: int) -> bool:
    """True for a living process; a zombie waits for whoever adopted it and has ended."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
