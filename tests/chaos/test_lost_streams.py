"""Streams, consumers and buckets deleted under a running pipeline: repaired, and nothing lost,
doubled or paid for twice that the rest still knows."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nats
import psutil
import pytest
from nats.js import JetStreamContext
from running_pipeline import Pipeline, invented_words, running_pipeline, until

from services.kernel.topology import CONSUMERS, ServiceName

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(180)]

TERMS = 40
FLAGS = ("--latency-ms", "500", "--jitter-ms", "20")
WORDS = iter(invented_words(20 * TERMS))
SETTINGS = {
    "CARDFLOW_NATS__WATCH_INTERVAL_S": "1",
    "CARDFLOW_LOG__FORMAT": "json",
    "CARDFLOW_RETRY__CAP_S": "2",
}
IDLE_SHARE = 0.5
"""Of a core, in a process whose consumer is missing. A fetch without a pause takes 0.76."""
MEASURED_S = 2.0


@dataclass
class Running:
    """A pipeline whose batches so far are all complete."""

    pipeline: Pipeline
    log: Path
    batches: int = 0

    def submit(self, batch: str, folder: Path) -> None:
        words = folder / f"{batch}.txt"
        words.write_text("\n".join(next(WORDS) for _ in range(TERMS)) + "\n")
        self.pipeline.run("submit", str(words), "--batch", batch)
        self.batches += 1

    def status(self, batch: str) -> dict[str, object]:
        """Empty while it can't be told."""
        shown = self.pipeline.run("status", batch, "--json", exit_code=None)
        return dict(json.loads(shown)) if shown else {}

    def until_half_is_asked_for(self) -> None:
        """Half of the newest batch's calls are made: there is work in every stream."""
        calls = 2 * TERMS * self.batches - TERMS
        until(
            lambda: self.pipeline.simulator()["calls"] >= calls,
            within_s=60,
            what="half of the calls are made",
        )

    def until_repaired(self, told: str) -> None:
        until(lambda: told in self.log.read_text(), within_s=40, what=f"the log tells {told!r}")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("lost")
    log = folder / "up.log"
    with running_pipeline(folder / "data", *FLAGS, settings=SETTINGS, log=log) as pipeline:
        yield Running(pipeline, log)


async def _delete(url: str, stream: str, consumer: str | None) -> None:
    nc = await nats.connect(url)
    js: JetStreamContext = nc.jetstream()
    if consumer is None:
        await js.delete_stream(stream)
    else:
        await js.delete_consumer(stream, consumer)
    await nc.close()


def delete(pipeline: Pipeline, stream: str, consumer: str | None = None) -> None:
    asyncio.run(_delete(pipeline.nats_url, stream, consumer))


@pytest.mark.parametrize(
    "service",
    [
        "stage1",
        *(pytest.param(s, marks=pytest.mark.long) for s in ("ingest", "stage2", "exporter")),
    ],
)
def test_a_deleted_consumer_is_made_again_and_nothing_is_paid_for_twice(
    service: ServiceName, running: Running, tmp_path: Path
) -> None:
    batch = f"consumer-{service}"
    running.submit(batch, tmp_path)
    running.until_half_is_asked_for()
    delete(running.pipeline, CONSUMERS[service].stream, service)
    running.until_repaired(f"consumer {service}: created")
    assert_whole(running, batch)


@pytest.mark.parametrize(
    ("stream", "told"),
    [
        pytest.param("TERMS", "filled again by ingest", marks=pytest.mark.long),
        ("ANALYSES", "filled again by stage1"),
        pytest.param("CARDS", "filled again by stage2", marks=pytest.mark.long),
        pytest.param("DEAD_LETTERS", "lost: what was given up on", marks=pytest.mark.long),
        pytest.param("KV_CLAIMS", "claims of calls under way", marks=pytest.mark.long),
    ],
)
def test_a_deleted_stream_is_filled_again_and_nothing_is_paid_for_twice(
    stream: str, told: str, running: Running, tmp_path: Path
) -> None:
    batch = f"stream-{stream}"
    running.submit(batch, tmp_path)
    running.until_half_is_asked_for()
    delete(running.pipeline, stream)
    running.until_repaired(f" {stream}: created; ")
    assert told in running.log.read_text()
    assert_whole(running, batch)


@pytest.mark.long
def test_without_the_supervisors_repair_no_process_spins_and_provision_repairs(
    tmp_path: Path,
) -> None:
    settings = SETTINGS | {"CARDFLOW_NATS__WATCH_INTERVAL_S": "600"}
    with running_pipeline(tmp_path / "data", *FLAGS, settings=settings) as pipeline:
        running = Running(pipeline, tmp_path / "none.log")
        running.submit("b1", tmp_path)
        running.until_half_is_asked_for()
        processes = [psutil.Process(pipeline.pid_of(name)) for name in (*CONSUMERS, "nats-server")]
        for consumer in CONSUMERS.values():
            delete(pipeline, consumer.stream, consumer.durable)
        for service in pipeline.endpoints["services"]:
            until(  # A pull that waits is not told; the next one fails.
                lambda url=service["http_url"], name=service["name"]: (
                    f"consumer {name}" in not_ready(url)
                ),
                within_s=30,
                what=f"{service['name']} misses its consumer",
            )
        assert busiest(processes) < IDLE_SHARE
        for stream in ("ANALYSES", "CARDS"):
            delete(pipeline, stream)
        assert busiest(processes) < IDLE_SHARE
        assert "stream CARDS: created" in pipeline.run("provision")
        until(lambda: running.status("b1").get("state") == "completed", within_s=90, what="its end")
        assert running.status("b1")["finished"] == TERMS
        assert pipeline.simulator()["calls"] == 2 * TERMS
        for service in pipeline.endpoints["services"]:
            until(
                lambda url=service["http_url"]: not not_ready(url),
                within_s=20,
                what=f"{service['name']} is ready again",
            )


def busiest(processes: list[psutil.Process]) -> float:
    """The largest share of a core that one of the processes takes in the next two seconds."""
    before = [sum(process.cpu_times()[:2]) for process in processes]
    time.sleep(MEASURED_S)  # What is measured is a time.
    after = [sum(process.cpu_times()[:2]) for process in processes]
    return max(end - begin for begin, end in zip(before, after, strict=True)) / MEASURED_S


def not_ready(http_url: str) -> dict[str, str]:
    """What /readyz names as the reason; empty when all is well."""
    try:
        with urllib.request.urlopen(f"{http_url}/readyz", timeout=5):
            return {}
    except urllib.error.HTTPError as error:
        return dict(json.load(error)["dependencies"])


def assert_whole(running: Running, batch: str) -> None:
    assert_ended_without_a_call_too_many(running, batch)
    audit = running.pipeline.json("audit", exit_code=None)
    assert audit["balanced"], audit


def assert_ended_without_a_call_too_many(running: Running, batch: str) -> None:
    until(lambda: running.status(batch).get("state") == "completed", within_s=90, what="its end")
    until(lambda: all_are_finished(running), within_s=60, what="the batches before are whole, too")
    assert running.pipeline.simulator()["calls"] == 2 * TERMS * running.batches


def all_are_finished(running: Running) -> bool:
    shown = running.pipeline.json("status")
    counts = [(batch["finished"], batch["dead"]) for batch in shown]
    return counts == [(TERMS, 0)] * running.batches
