"""The supervisor ended, with and without warning: everybody ends, and the next one goes on."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from looking import finished, submit, wait_until_completed
from promises import answer_of, words
from running_pipeline import running_pipeline, until

pytestmark = [pytest.mark.chaos, pytest.mark.long, pytest.mark.timeout(180)]

TERMS = 150
# Latencies are such that a batch takes several seconds, so that kills and stops meet it half done.
ROLES = ("stage1", "stage2", "ingest", "exporter", "simulator", "nats-server")
GRACE = {"CARDFLOW_GRACE_S": "5"}


def test_sigterm_in_the_middle_exits_0_and_the_next_up_goes_on(data: Path, seed: int) -> None:
    """P1–P3: work in hand is finished first, so that no call is made again."""
    flags = ("--latency-ms", "400", "--jitter-ms", "20")
    with running_pipeline(data, *flags) as pipeline:
        url = pipeline.nats_url
        submit(url, "stopped", words(seed, TERMS))
        until(lambda: 0 < len(finished(url, "stopped")) < TERMS, within_s=30, what="some are done")
        assert pipeline.stop(signal.SIGTERM, within_s=40) == 0
        assert not (data / "endpoints.json").exists()
    with running_pipeline(data, *flags) as again:
        wait_until_completed(again, "stopped", within_s=60)
        audit = answer_of(again, "audit", "stopped")
        assert (audit["balanced"], audit["uncertain"]) == (True, 0)
        assert answer_of(again, "status", "stopped")["calls"] == 2 * TERMS


def test_provider_and_supervisor_killed_leave_nobody_behind_and_the_next_up_goes_on(
    data: Path, seed: int
) -> None:
    """P1: a provider that dies is started again; who lost its supervisor ends by itself, and what
    it left is taken up.
    """
    with running_pipeline(data, "--latency-ms", "400", settings=GRACE) as pipeline:
        submit(pipeline.nats_url, "orphans", words(seed, TERMS))
        provider = pipeline.pid_of("simulator")
        os.kill(provider, signal.SIGKILL)
        until(
            lambda: pipeline.pid_of("simulator") != provider, within_s=20, what="another provider"
        )
        pids = [pipeline.pid_of(role) for role in ROLES]
        pipeline.stop(signal.SIGKILL)
        until(lambda: not any(map(_runs, pids)), within_s=40, what="the children end, too")
    with running_pipeline(data, "--latency-ms", "20") as again:
        wait_until_completed(again, "orphans", within_s=60)
        assert answer_of(again, "status", "orphans")["finished"] == TERMS
        assert answer_of(again, "audit", "orphans")["balanced"]


def _runs(pid: int) -> bool:
    """True for a living process; a zombie waits for whoever adopted it and has ended."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
