"""P5: a stage's limits hold for all its replicas together, and are used up while there is work."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from looking import submit, wait_until_completed
from promises import assert_promises, record_figures, words
from running_pipeline import Pipeline, cardflow, environment, running_pipeline, until

from services.cli.machine.nats_server import free_port
from services.kernel.fleet.pace.record import LATE_S

pytestmark = [pytest.mark.chaos]

MODELS = {"stage1": "simulated/one", "stage2": "simulated/two"}
LIMIT = 600
"""Requests a minute, of each stage, and of each model at the simulator."""
SETTINGS = {
    "CARDFLOW_STAGE1__MODEL": MODELS["stage1"],
    "CARDFLOW_STAGE2__MODEL": MODELS["stage2"],
    "CARDFLOW_STAGE1__REQUESTS_PER_MINUTE": str(LIMIT),
    "CARDFLOW_STAGE2__REQUESTS_PER_MINUTE": str(LIMIT),
}
FLAGS = ("--rpm", str(LIMIT), "--latency-ms", "50", "--jitter-ms", "20")
WITHIN_A_SECOND = round(LIMIT / 60 * (1 + LATE_S)) + 2
"""Each call is up to `LATE_S` late by itself, and a little on its way."""


def test_two_replicas_a_stage_keep_one_limit(data: Path, seed: int) -> None:
    terms = words(seed, 50)
    with running_pipeline(
        data, *FLAGS, "--replicas", "stage1=2,stage2=2", settings=SETTINGS
    ) as pipeline:
        submit(pipeline.nats_url, "paced", terms)
        wait_until_completed(pipeline, "paced", within_s=60)
        assert_promises(pipeline, "paced", terms)
        stats = pipeline.simulator()
        used = pipeline.json("limits", "stage1")[0]["limits"]["requests_per_minute"]["used"]
    assert stats["rate_limited"] == 0
    assert 0 < used <= len(terms), "each replica reports within five seconds"
    for model in MODELS.values():
        seen = stats["models"][model]
        assert seen["admitted"] == len(terms)
        assert seen["busiest_second"] <= WITHIN_A_SECOND


@pytest.mark.long
@pytest.mark.timeout(600)
def test_four_replicas_a_stage_use_a_limit_up_for_minutes(data: Path, seed: int) -> None:
    terms = words(seed, 1_550)
    flags = (*FLAGS, "--replicas", "stage1=4,stage2=4")
    with running_pipeline(data, *flags, settings=SETTINGS) as pipeline:
        submit(pipeline.nats_url, "paced", terms)
        _wait_for_calls(pipeline, len(terms), within_s=300)
        wait_until_completed(pipeline, "paced", within_s=60)
        evidence = assert_promises(pipeline, "paced", terms)
        stats = pipeline.simulator()
    figures = _figures(stats)
    record_figures("four replicas a stage, 600 calls a minute each", evidence, **figures)
    _assert_limit_kept_and_used(figures)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_replicas_that_come_and_go_keep_the_limit_and_use_it(data: Path, seed: int) -> None:
    """One replica a stage, then four, then one: two of the three are stopped, one is killed."""
    terms = words(seed + 1, 1_550)
    with ExitStack() as more, running_pipeline(data, *FLAGS, settings=SETTINGS) as pipeline:
        submit(pipeline.nats_url, "paced", terms)
        time.sleep(40)
        started = [
            more.enter_context(_one_more(pipeline, stage)) for stage in MODELS for _ in range(3)
        ]
        time.sleep(60)
        for number, replica in enumerate(started):
            replica.send_signal(signal.SIGKILL if number % 3 == 0 else signal.SIGTERM)
        in_flight = 2 * 16
        _wait_for_calls(pipeline, len(terms), within_s=300)
        wait_until_completed(pipeline, "paced", within_s=60)
        evidence = assert_promises(pipeline, "paced", terms, in_flight_at_kills=in_flight)
        stats = pipeline.simulator()
    figures = _figures(stats)
    record_figures("replicas 1, 4, 1 a stage, 600 calls a minute each", evidence, **figures)
    _assert_limit_kept_and_used(figures)


@pytest.mark.long
@pytest.mark.timeout(300)
def test_fifty_calls_in_flight_are_kept_in_flight(data: Path, seed: int) -> None:
    """Calls of one second, 50 at once: 50 a second at best, while work waits."""
    terms = words(seed + 2, 500)
    settings = {"CARDFLOW_STAGE1__MODEL": MODELS["stage1"]} | {
        f"CARDFLOW_{stage}__{name}": value
        for stage in ("STAGE1", "STAGE2")
        for name, value in (("CONCURRENCY", "100"), ("CALLS_IN_FLIGHT", "50"))
    }
    settings["CARDFLOW_STAGE2__MODEL"] = MODELS["stage2"]
    flags = ("--latency-ms", "1000", "--jitter-ms", "0")
    with running_pipeline(data, *flags, settings=settings) as pipeline:
        with _sampled(pipeline) as samples:
            submit(pipeline.nats_url, "paced", terms)
            wait_until_completed(pipeline, "paced", within_s=120)
        evidence = assert_promises(pipeline, "paced", terms)
        stats = pipeline.simulator()
    rates = {model: _steady_rate(samples, model, len(terms)) for model in MODELS.values()}
    record_figures(
        "50 calls of one second in flight, 500 terms",
        evidence,
        ideal_calls_per_s=50,
        steady_calls_per_s={model: round(rate, 2) for model, rate in rates.items()},
        highest_concurrency=stats["highest_concurrency"],
    )
    assert stats["highest_concurrency"] <= 100
    assert min(rates.values()) >= 0.98 * 50


def _wait_for_calls(pipeline: Pipeline, count: int, *, within_s: float) -> None:
    """Asks the simulator alone, and seldom: looking costs the processor that is looked at."""

    def all_made() -> bool:
        models = pipeline.simulator()["models"]
        return all(models.get(model, {}).get("admitted", 0) >= count for model in MODELS.values())

    until(all_made, within_s=within_s, what=f"{count} calls of each stage", every_s=2)


def _figures(stats: dict[str, Any]) -> dict[str, Any]:
    figures: dict[str, Any] = {"limit": LIMIT, "answers_429": stats["rate_limited"]}
    for stage, model in MODELS.items():
        seen = stats["models"][model]
        seconds = seen["last_at"] - seen["first_at"]
        figures[stage] = {
            "calls": seen["admitted"],
            "seconds": round(seconds, 1),
            "busiest_minute": seen["busiest_minute"],
            "busiest_second": seen["busiest_second"],
            "share_of_limit": round((seen["admitted"] - 1) / seconds * 60 / LIMIT, 4),
        }
    return figures


def _assert_limit_kept_and_used(figures: dict[str, Any]) -> None:
    assert figures["answers_429"] == 0
    for stage in MODELS:
        assert figures[stage]["seconds"] >= 150
        assert figures[stage]["busiest_minute"] <= LIMIT
        assert figures[stage]["share_of_limit"] >= 0.98


@contextmanager
def _one_more(pipeline: Pipeline, stage: str) -> Iterator[subprocess.Popen[bytes]]:
    """One more replica of a stage, beside those of `cardflow up`."""
    endpoints = pipeline.endpoints
    settings = SETTINGS | {
        "CARDFLOW_NATS__URL": pipeline.nats_url,
        "CARDFLOW_HTTP__PORT": str(free_port()),
        "CARDFLOW_PROVIDER__KIND": "simulated",
        "CARDFLOW_PROVIDER__BASE_URL": endpoints["provider"]["base_url"],
    }
    log = pipeline.data / "logs" / f"{stage}-more-{settings['CARDFLOW_HTTP__PORT']}.log"
    with log.open("ab") as file:
        replica = subprocess.Popen(
            cardflow("run", stage),
            stdout=file,
            stderr=file,
            env=environment() | {k: v for k, v in os.environ.items() if k == "PATH"} | settings,
        )
        try:
            yield replica
        finally:
            replica.kill()
            replica.wait()


@contextmanager
def _sampled(pipeline: Pipeline) -> Iterator[list[tuple[float, dict[str, int]]]]:
    """(time, calls let in by model) every half second."""
    samples: list[tuple[float, dict[str, int]]] = []
    ended = threading.Event()

    def sample() -> None:
        while not ended.wait(0.5):
            models = pipeline.simulator()["models"]
            counts = {model: int(seen["admitted"]) for model, seen in models.items()}
            samples.append((time.monotonic(), counts))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        ended.set()
        thread.join()


def _steady_rate(samples: list[tuple[float, dict[str, int]]], model: str, calls: int) -> float:
    """Calls a second from the second wave to the last that found work waiting."""
    steady = [
        (at, counts[model]) for at, counts in samples if 100 <= counts.get(model, 0) <= calls - 100
    ]
    (begin, first), (end, last) = steady[0], steady[-1]
    return (last - first) / (end - begin)
