"""The whole machine goes down at once, as in a power failure, and `up` is called again."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import psutil
import pytest
from anki.collection import (
    Collection,
    ImportAnkiPackageOptions,
    ImportAnkiPackageRequest,
)
from looking import (
    STAGES,
    attempts,
    finished,
    open_calls,
    stored_cards,
    submit,
    wait_until_completed,
)
from promises import answer_of, assert_promises, record_figures, words
from running_pipeline import Pipeline, cardflow, environment, running_pipeline, until

from services.cli.machine.nats_server import free_port, is_free

pytestmark = [pytest.mark.chaos]

SETTINGS = {"CARDFLOW_STAGE1__CONCURRENCY": "4", "CARDFLOW_STAGE2__CONCURRENCY": "4"}


@dataclass(frozen=True)
class Size:
    terms: int
    kills: int


@pytest.mark.parametrize(
    "size",
    [
        pytest.param(Size(120, 1), id="short", marks=pytest.mark.timeout(180)),
        pytest.param(Size(1000, 8), id="long", marks=[pytest.mark.long, pytest.mark.timeout(600)]),
    ],
)
def test_a_batch_half_done_goes_on_where_everything_was_killed(
    data: Path, seed: int, size: Size
) -> None:
    """P1, P2; P3: the provider's bill is that of one pass and of the calls in flight at the kill.
    The deck that comes of it has each card once.
    """
    terms = words(seed, size.terms)
    with _simulator() as base_url:
        flags = ("--provider", "simulated", "--base-url", base_url)
        in_flight = set()
        for kill in range(size.kills):
            with running_pipeline(data, *flags, settings=SETTINGS) as pipeline:
                if kill == 0:
                    submit(pipeline.nats_url, "half", terms)
                enough = (kill + 1) * size.terms // (size.kills + 1)
                _until_finished(pipeline, enough)
                pids = _stop_stages(pipeline)
                in_flight |= open_calls(pipeline.nats_url)
                _kill_all(pipeline, pids)
        with running_pipeline(data, *flags, settings=SETTINGS) as pipeline:
            wait_until_completed(pipeline, "half", within_s=90)
            evidence = assert_promises(pipeline, "half", terms, in_flight_at_kills=len(in_flight))
            assert evidence.uncertain <= len(in_flight)
            one_pass, charged, dearest = _bill(pipeline)
            cards = stored_cards(pipeline, "half")
    record_figures(
        f"everything killed {size.kills} times",
        evidence,
        seed=seed,
        in_flight_at_kills=len(in_flight),
        charged_usd=str(charged),
        one_pass_usd=str(one_pass),
    )
    assert one_pass <= charged <= one_pass + dearest * len(in_flight)
    assert notes_in(data / "decks" / "half.apkg", data / "collection.anki2") == cards


def notes_in(package: Path, collection: Path) -> int:
    """The notes that Anki makes of a deck file."""
    opened = Collection(str(collection))
    try:
        opened.import_anki_package(
            ImportAnkiPackageRequest(package_path=str(package), options=ImportAnkiPackageOptions())
        )
        return opened.note_count()
    finally:
        opened.close()


def _bill(pipeline: Pipeline) -> tuple[Decimal, Decimal, Decimal]:
    """What the books have as billed (one pass), what was charged, and the dearest call."""
    costs = [a.cost_usd for tried in attempts(pipeline.nats_url).values() for a in tried]
    charged = Decimal(str(pipeline.simulator()["charged_usd"]))
    assert answer_of(pipeline, "audit")["balanced"]
    return sum(costs, Decimal(0)), charged, max(costs)


def _until_finished(pipeline: Pipeline, count: int) -> None:
    until(
        lambda: len(finished(pipeline.nats_url, "half")) >= count,
        within_s=60,
        what=f"{count} are finished",
    )


def _stop_stages(pipeline: Pipeline) -> list[int]:
    """The supervisor and the stages stand still: no call is begun or ended from here on."""
    supervisor = int(pipeline.endpoints["supervisor_pid"])
    pids = [p.pid for p in psutil.Process(supervisor).children(recursive=True)]
    os.kill(supervisor, signal.SIGSTOP)
    for replica in pipeline.replicas():
        if replica.name in STAGES:
            os.kill(replica.pid, signal.SIGSTOP)
    return pids


def _kill_all(pipeline: Pipeline, pids: list[int]) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    pipeline.stop(signal.SIGKILL)


@contextmanager
def _simulator() -> Iterator[str]:
    """A provider that lives through everything; its base URL."""
    port = free_port()
    command = cardflow("simulate", "--port", str(port), "--latency-ms", "100")
    with subprocess.Popen(
        command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            until(lambda: not is_free(port), within_s=20, what="the simulator listens")
            yield f"http://127.0.0.1:{port}/api/v1"
        finally:
            process.terminate()
