"""A provider that is limited, storms or is away: the fleet waits as one, and is back by itself."""

from __future__ import annotations

import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from promises import record_figures
from running_pipeline import (
    Pipeline,
    cardflow,
    environment,
    invented_words,
    running_pipeline,
    until,
)

from services.cli.machine.nats_server import free_port

pytestmark = [pytest.mark.chaos, pytest.mark.long, pytest.mark.timeout(600)]

REPLICAS = ("--replicas", "stage1=2,stage2=2")
WITHIN_S = 60
"""After a fault the pipeline is back at nine tenths of its rate within this time."""


@contextmanager
def at_work(data: Path, *flags: str, terms: int = 20_000) -> Iterator[Pipeline]:
    """A pipeline with two replicas a stage, and more to do than it can within the test."""
    with running_pipeline(data, *REPLICAS, *flags, log=data.parent / "up.log") as pipeline:
        words = data.parent / "words.txt"
        words.write_text("\n".join(invented_words(terms)) + "\n")
        submitting = subprocess.Popen(
            cardflow("submit", str(words), "--batch", "b", "--data", str(data)),
            env=environment(),
            stdout=subprocess.DEVNULL,
        )
        try:
            until(lambda: answered(pipeline) > 20, within_s=30, what="work begins")
            yield pipeline
        finally:
            submitting.terminate()
            submitting.wait()


def answered(pipeline: Pipeline) -> int:
    return int(pipeline.simulator()["answered"])


def rate(pipeline: Pipeline, over_s: float) -> float:
    """Answers a second, from now on."""
    begun, before = time.monotonic(), answered(pipeline)
    time.sleep(over_s)
    return (answered(pipeline) - before) / (time.monotonic() - begun)


def back_after(pipeline: Pipeline, clean: float) -> float:
    """Seconds until the rate is nine tenths of the clean one."""
    begun = time.monotonic()
    while time.monotonic() - begun < 2 * WITHIN_S:
        if rate(pipeline, 2) >= 0.9 * clean:
            return time.monotonic() - begun - 2
    raise AssertionError("the rate never came back")


def route(pipeline: Pipeline) -> dict[str, Any]:
    (only,) = pipeline.json("status", "b")["routes"]
    return dict(only)


def expect_no_attempt_used(pipeline: Pipeline, *, lost: int = 0) -> None:
    status = pipeline.json("status", "b")
    assert status["dead"] == 0
    # Calls on the books are answers; what the provider refused is none of them.
    assert status["calls"] <= answered(pipeline) + lost


@pytest.mark.parametrize("storm_s", [180], ids=["three minutes"])
def test_a_storm_of_429s_with_odd_hints(data: Path, storm_s: float) -> None:
    with at_work(data, "--latency-ms", "200") as pipeline:
        time.sleep(5)
        clean = rate(pipeline, 10)
        pipeline.control(storm=True)
        time.sleep(storm_s)
        refused = pipeline.simulator()["refused"]
        pipeline.control(storm=False)
        back_s = back_after(pipeline, clean)
        record_figures(f"storm of {storm_s} s", clean_per_s=clean, back_s=back_s, refused=refused)
        assert back_s <= WITHIN_S
        expect_no_attempt_used(pipeline)


@pytest.mark.parametrize("lasting_s", [90], ids=["90 s"])
def test_an_unknown_limit_is_found(data: Path, lasting_s: float) -> None:
    with running_pipeline(data, *REPLICAS, log=data.parent / "up.log") as pipeline:
        pipeline.control(rps=20)
        words = data.parent / "words.txt"
        words.write_text("\n".join(invented_words(8_000)) + "\n")
        pipeline.run("submit", str(words), "--batch", "b")
        time.sleep(60)
        used = rate(pipeline, lasting_s) / 20
        stats = pipeline.simulator()
        refused = stats["rate_limited"] / stats["calls"]
        record_figures(
            "unknown limit of 20/s",
            used_share=used,
            refused_share=refused,
            found=route(pipeline)["learned_requests_per_minute"],
        )
        assert used >= 0.9
        assert refused < 0.02
        expect_no_attempt_used(pipeline)


@pytest.mark.parametrize("down_s", [20, 120], ids=["short", "full"])
def test_a_provider_that_answers_503(data: Path, down_s: float) -> None:
    with at_work(data, "--latency-ms", "200") as pipeline:
        time.sleep(5)
        clean = rate(pipeline, 10)
        pipeline.control(down=True)
        until(lambda: route(pipeline)["state"] == "open", within_s=15, what="the breaker opens")
        failures = pipeline.simulator()["errors"]["down"]
        time.sleep(down_s)
        probes = pipeline.simulator()["errors"]["down"] - failures
        pipeline.control(down=False)
        back_s = back_after(pipeline, clean)
        record_figures(
            f"503 for {down_s} s",
            failures_until_open=failures,
            probes=probes,
            clean_per_s=clean,
            back_s=back_s,
        )
        assert failures <= 20
        assert back_s <= WITHIN_S
        expect_no_attempt_used(pipeline)


@pytest.mark.parametrize("away_s", [20, 120], ids=["short", "full"])
def test_a_provider_that_is_gone(data: Path, away_s: float) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}/api/v1"
    simulator = simulating(port)
    try:
        with at_work(data, "--base-url", url, "--provider", "simulated") as pipeline:
            time.sleep(5)
            clean = rate(pipeline, 10)
            simulator.kill()
            simulator.wait()
            time.sleep(away_s)
            shown = route(pipeline)
            simulator = simulating(port)
            back_s = back_after(pipeline, clean)
            openings = calls_told(pipeline, "cardflow_route_openings_total")
            record_figures(
                f"gone for {away_s} s", clean_per_s=clean, back_s=back_s, openings=openings
            )
            assert shown["state"] in ("open", "half-open")
            assert "can't be reached" in shown["reason"] or "cut off" in shown["reason"]
            assert back_s <= WITHIN_S
            assert pipeline.json("status", "b")["dead"] == 0
    finally:
        simulator.kill()
        simulator.wait()


def simulating(port: int) -> subprocess.Popen[bytes]:
    """A simulator of its own, which nobody starts again."""
    process = subprocess.Popen(
        cardflow("simulate", "--port", str(port), "--latency-ms", "200"),
        env=environment(),
        stderr=subprocess.DEVNULL,
    )
    until(lambda: _answers(f"http://127.0.0.1:{port}/livez"), within_s=20, what="it listens")
    return process


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except OSError:
        return False


def calls_told(pipeline: Pipeline, metric: str) -> float:
    """The sum of a metric over the replicas of both stages."""
    total = 0.0
    for replica in pipeline.replicas():
        with urllib.request.urlopen(f"{replica.http_url}/metrics", timeout=5) as answer:
            lines: list[str] = answer.read().decode().splitlines()
        total += sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(metric))
    return total
