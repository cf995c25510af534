"""nats-server is away for a while: hung, or gone."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from looking import (
    Answer,
    blocked,
    finished,
    in_hand_of_stages,
    is_ready,
    probe,
    reasons,
    submit,
    wait_until_completed,
)
from promises import assert_promises, record_figures, words
from running_pipeline import Pipeline, running_pipeline, until

from services.cli.machine.nats_server import EmbeddedServer, free_port

pytestmark = [pytest.mark.chaos]

TERMS = 120
FLAGS = ("--latency-ms", "100", "--jitter-ms", "20")
SETTINGS = {"CARDFLOW_STAGE1__CONCURRENCY": "4", "CARDFLOW_STAGE2__CONCURRENCY": "4"}
LOOK_EVERY_S = 0.2
BLOCKED_S = 1.0
NOTICED_S = 10.0
"""A server that is gone is noticed at once, a hung one when a ping stays without an answer."""


def away(seconds: int) -> pytest.MarkDecorator:
    return pytest.mark.timeout(180 + 2 * seconds)


LENGTHS = pytest.mark.parametrize(
    "away_s",
    [
        pytest.param(5, id="short", marks=away(5)),
        pytest.param(60, id="a minute", marks=[pytest.mark.long, away(60)]),
        pytest.param(600, id="ten minutes", marks=[pytest.mark.long, away(600)]),
    ],
)


@LENGTHS
def test_a_server_that_is_gone_for_a_while_restarts_nobody_and_blocks_nobody(
    data: Path, tmp_path: Path, seed: int, away_s: int
) -> None:
    """P1–P3, P6: every /livez answers within a second all the time, /readyz says 503 and why,
    nobody is restarted, and the batch goes on by itself.
    """
    server = EmbeddedServer(tmp_path / "nats", port=free_port(), sync_always=False)
    with server.running() as process, _half_done(data, server, "gone", seed) as pipeline:
        process.send_signal(signal.SIGSTOP)  # What is in hand now can't end in the books any more.
        in_flight = in_hand_of_stages(pipeline)
        process.kill()
        process.wait()
        began = time.monotonic()
        with ExitStack() as back:
            with _watched(pipeline) as watch:
                until(lambda: not _ready(pipeline), within_s=NOTICED_S, what="all say so")
                named = {r.label: reasons(r) for r in pipeline.replicas()}
                _until_over(began + away_s)
                still_down = _ready(pipeline) == []
                back.enter_context(server.running())
                _assert_it_goes_on(pipeline, "gone", seed, in_flight, watch, away_s)
            pipeline.stop()
    assert {label: why.get("nats") for label, why in named.items()} == dict.fromkeys(
        named, "not connected"
    )
    assert still_down


@pytest.mark.long
@LENGTHS
def test_a_server_that_hangs_for_a_while_restarts_nobody_and_blocks_nobody(
    data: Path, tmp_path: Path, seed: int, away_s: int
) -> None:
    """The same of a server that takes connections and says nothing."""
    server = EmbeddedServer(tmp_path / "nats", port=free_port(), sync_always=False)
    with server.running() as process, _half_done(data, server, "hung", seed) as pipeline:
        process.send_signal(signal.SIGSTOP)
        in_flight = in_hand_of_stages(pipeline)
        began = time.monotonic()
        with _watched(pipeline) as watch:
            try:
                _until_over(began + away_s)
                ready = _ready(pipeline)
            finally:
                process.send_signal(signal.SIGCONT)
            _assert_it_goes_on(pipeline, "hung", seed, in_flight, watch, away_s)
    record_figures("hung, ready meanwhile", away_s=away_s, ready=ready)
    if away_s > NOTICED_S:
        assert ready == []


def _assert_it_goes_on(
    pipeline: Pipeline, batch: str, seed: int, in_flight: int, watch: Watch, away_s: int
) -> None:
    back = time.monotonic()
    terms = words(seed, TERMS)
    before = set(finished(pipeline.nats_url, batch))
    url = pipeline.nats_url
    until(lambda: set(finished(url, batch)) != before, within_s=60, what="one more is finished")
    first_s = time.monotonic() - back
    until(lambda: len(finished(url, batch)) == TERMS, within_s=60, what="all are finished")
    all_s = time.monotonic() - back
    wait_until_completed(pipeline, batch, within_s=30)
    evidence = assert_promises(pipeline, batch, terms, in_flight_at_kills=in_flight)
    record_figures(
        f"nats-server {batch} for {away_s} s",
        evidence,
        seed=seed,
        in_hand_when_it_went=in_flight,
        first_term_after_s=round(first_s, 2),
        all_terms_after_s=round(all_s, 2),
        completed_after_s=round(time.monotonic() - back, 2),
        slowest_livez_s=round(watch.slowest_s, 3),
        livez_probes=watch.probes,
    )
    assert watch.silent == []
    assert _blocked(pipeline) == watch.blocked, "an event loop stood still for a second"
    assert pipeline.deaths() == []


@dataclass
class Watch:
    """What /livez of all services said so far, and how often a loop was `blocked` before."""

    slowest_s: float = 0.0
    probes: int = 0
    blocked: Counter[str] = field(default_factory=Counter)
    silent: list[tuple[str, Answer]] = field(default_factory=list)

    def look(self, pipeline: Pipeline) -> None:
        for replica in pipeline.replicas():
            answer = probe(replica, "/livez", within_s=5 * BLOCKED_S)
            self.probes += 1
            self.slowest_s = max(self.slowest_s, answer.seconds)
            if answer.status != 200 or answer.seconds > BLOCKED_S:
                self.silent.append((replica.label, answer))


@contextmanager
def _watched(pipeline: Pipeline) -> Iterator[Watch]:
    """Looks at every /livez five times a second meanwhile."""
    watch, over = Watch(blocked=_blocked(pipeline)), threading.Event()

    def keep_looking() -> None:
        while not over.wait(LOOK_EVERY_S):
            watch.look(pipeline)

    watcher = threading.Thread(target=keep_looking)
    watcher.start()
    try:
        yield watch
    finally:
        over.set()
        watcher.join()


@contextmanager
def _half_done(data: Path, server: EmbeddedServer, batch: str, seed: int) -> Iterator[Pipeline]:
    """A pipeline on the server, in the middle of its batch."""
    flags = (*FLAGS, "--nats", server.url)
    with running_pipeline(data, *flags, settings=SETTINGS) as pipeline:
        submit(pipeline.nats_url, batch, words(seed, TERMS))
        until(
            lambda: len(finished(pipeline.nats_url, batch)) > TERMS // 4,
            within_s=30,
            what="a part is finished",
        )
        yield pipeline


def _blocked(pipeline: Pipeline) -> Counter[str]:
    return Counter({r.label: blocked(r) for r in pipeline.replicas()})


def _ready(pipeline: Pipeline) -> list[str]:
    return [r.label for r in pipeline.replicas() if is_ready(r)]


def _until_over(deadline: float) -> None:
    """The absence takes its time, whatever else happens."""
    time.sleep(max(0.0, deadline - time.monotonic()))
