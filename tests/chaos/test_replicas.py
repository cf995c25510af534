"""Replicas that are ended or stopped at random moments while a batch passes."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from looking import (
    STAGES,
    OpenCall,
    is_ready,
    is_working,
    open_batch,
    open_calls,
    publish_terms,
    wait_until_completed,
)
from promises import assert_promises, record_figures, words
from running_pipeline import Pipeline, Replica, running_pipeline, until

from services.kernel.settings import KernelSettings

pytestmark = [pytest.mark.chaos]

LATENCY_MS = 20
ACK_WAIT_S = 3
CALL_ENDS_S = 5 * LATENCY_MS / 1000
"""By then every call of a living replica has ended."""
_WORK_WITHIN_S = 0.5
FLAGS = ("--latency-ms", str(LATENCY_MS), "--jitter-ms", "10", "--replicas", "stage1=2,stage2=2")
SETTINGS = {
    # Few at once, so that a portion of the batch is under way for some time.
    "CARDFLOW_STAGE1__CONCURRENCY": "3",
    "CARDFLOW_STAGE2__CONCURRENCY": "3",
    "CARDFLOW_NATS__ACK_WAIT_S": str(ACK_WAIT_S),
    # A term may meet many kills; here none is to be given up for that.
    "CARDFLOW_RETRY__MAX_ATTEMPTS": "20",
}


@dataclass(frozen=True)
class Size:
    terms: int
    ends: int
    end_s: float


def sizes(short: Size, long: Size) -> pytest.MarkDecorator:
    slow = [pytest.mark.long, pytest.mark.timeout(900)]
    return pytest.mark.parametrize(
        "size",
        [
            pytest.param(short, id="short", marks=pytest.mark.timeout(180)),
            pytest.param(long, id="long", marks=slow),
        ],
    )


@sizes(Size(120, 10, 40), Size(1000, 100, 120))
def test_sigkill_of_random_replicas_loses_and_doubles_nothing(
    data: Path, seed: int, dice: random.Random, size: Size
) -> None:
    """P1, P2; P3: at most those calls are made again that were in flight at a kill."""
    in_flight: set[OpenCall] = set()
    killed: list[str] = []
    terms = words(seed, size.terms)
    with running_pipeline(data, *FLAGS, settings=SETTINGS) as pipeline:
        started = time.monotonic()
        for portion in _portions(pipeline, "killed", terms, size.ends):
            victim = _any_replica(pipeline, dice)
            publish_terms(pipeline.nats_url, "killed", portion)
            _wait_for_work(victim)
            in_flight |= _kill(pipeline, victim, dice)
            killed.append(victim.label)
        wait_until_completed(pipeline, "killed", within_s=size.end_s)
        seconds = time.monotonic() - started
        evidence = assert_promises(pipeline, "killed", terms, in_flight_at_kills=len(in_flight))
    assert in_flight, "no kill met a call under way"
    record_figures(
        f"sigkill of {size.ends} replicas",
        evidence,
        seed=seed,
        in_flight_at_kills=len(in_flight),
        kills_of_stages=sum(label.startswith(STAGES) for label in killed),
        seconds=round(seconds, 1),
    )


@sizes(Size(90, 6, 40), Size(1000, 100, 120))
def test_sigterm_of_random_replicas_ends_each_in_order_and_repeats_no_call(
    data: Path, seed: int, dice: random.Random, size: Size
) -> None:
    """P1, P2; each exits 0 inside its grace period, nothing is uncertain, no call made again."""
    terms = words(seed + 1, size.terms)
    seconds: list[float] = []
    with running_pipeline(data, *FLAGS, settings=SETTINGS) as pipeline:
        for portion in _portions(pipeline, "ended", terms, size.ends):
            victim = _any_replica(pipeline, dice)
            publish_terms(pipeline.nats_url, "ended", portion)
            _wait_for_work(victim)
            seconds.append(_terminate(pipeline, victim, dice))
        wait_until_completed(pipeline, "ended", within_s=size.end_s)
        evidence = assert_promises(pipeline, "ended", terms)
        codes = [code for _, code in pipeline.deaths()]
    record_figures(
        f"sigterm of {size.ends} replicas", evidence, seed=seed, longest_end_s=max(seconds)
    )
    assert codes == [0] * size.ends
    assert max(seconds) < KernelSettings().grace_s
    assert evidence.uncertain == 0


@pytest.mark.long
@sizes(Size(60, 1, 40), Size(600, 10, 120))
def test_a_replica_that_stands_still_for_longer_than_its_claims_pays_for_nothing_in_silence(
    data: Path, seed: int, dice: random.Random, size: Size
) -> None:
    """P1, P2; P3: others make the calls again that it had in flight, and no more. When it wakes up
    with an answer of its own, both are in the books: one as billed, the other as uncertain.
    """
    terms = words(seed + 2, size.terms)
    in_flight: set[OpenCall] = set()
    with running_pipeline(data, *FLAGS, settings=SETTINGS) as pipeline:
        for portion in _portions(pipeline, "still", terms, size.ends):
            sleepers = [r for r in pipeline.replicas() if r.label in ("stage1-1", "stage2-1")]
            publish_terms(pipeline.nats_url, "still", portion)
            for sleeper in sleepers:
                _wait_for_work(sleeper)
                os.kill(sleeper.pid, signal.SIGSTOP)
            try:
                time.sleep(CALL_ENDS_S)
                in_flight |= open_calls(pipeline.nats_url)
                time.sleep(dice.uniform(1.5, 2.5) * ACK_WAIT_S)
            finally:
                for sleeper in sleepers:
                    os.kill(sleeper.pid, signal.SIGCONT)
        wait_until_completed(pipeline, "still", within_s=size.end_s)
        evidence = assert_promises(pipeline, "still", terms, in_flight_at_kills=len(in_flight))
        assert pipeline.deaths() == []
    assert in_flight, "nobody had a call under way when it was stopped"
    record_figures(
        f"stages stand still {size.ends} times", evidence, seed=seed, in_flight=len(in_flight)
    )


def _portions(
    pipeline: Pipeline, batch: str, terms: list[str], count: int
) -> Iterator[tuple[str, ...]]:
    """The batch in so many portions of about one size; opens it."""
    open_batch(pipeline.nats_url, batch, len(terms))
    for at in range(count):
        yield tuple(terms[at * len(terms) // count : (at + 1) * len(terms) // count])


def _any_replica(pipeline: Pipeline, dice: random.Random) -> Replica:
    """One that is up, drawn anew while the drawn one is not."""
    drawn: list[Replica] = []

    def draw() -> bool:
        drawn[:] = [dice.choice(pipeline.replicas())]
        return is_ready(drawn[0])

    until(draw, within_s=60, what="a replica is up", every_s=0.01)
    return drawn[0]


def _wait_for_work(replica: Replica) -> None:
    """Returns at the latest when its work can only be over."""
    deadline = time.monotonic() + _WORK_WITHIN_S
    while time.monotonic() < deadline and not is_working(replica):
        time.sleep(0.002)


def _kill(pipeline: Pipeline, victim: Replica, dice: random.Random) -> set[OpenCall]:
    """Kills it some moment from now; the calls that were begun and not ended then.

    Stopped first: what is still open once all others had time to end is the victim's, or
    that of an earlier victim.
    """
    time.sleep(dice.uniform(0, LATENCY_MS / 1000))  # The moment is what chance is to choose.
    with _stopped(victim.pid):
        before = open_calls(pipeline.nats_url) if victim.name in STAGES else set()
        if before:
            time.sleep(CALL_ENDS_S)
            before &= open_calls(pipeline.nats_url)
        os.kill(victim.pid, signal.SIGKILL)
    return before


@contextmanager
def _stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    except BaseException:
        os.kill(pid, signal.SIGCONT)
        raise


def _terminate(pipeline: Pipeline, victim: Replica, dice: random.Random) -> float:
    """SIGTERM some moment from now; the seconds until its end was noted."""
    ends = len(pipeline.deaths())
    time.sleep(dice.uniform(0, LATENCY_MS / 1000))
    os.kill(victim.pid, signal.SIGTERM)
    started = time.monotonic()
    until(
        lambda: len(pipeline.deaths()) > ends,
        within_s=KernelSettings().grace_s + 10,
        what=f"{victim.label} ends",
        every_s=0.02,
    )
    return round(time.monotonic() - started, 2)
