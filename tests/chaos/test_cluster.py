"""Three nats-servers, every stream on all of them: leaders killed, then each node restarted."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import nats
import pytest
from looking import finished, open_batch, wait_until_completed
from promises import assert_promises, record_figures, words
from running_pipeline import running_pipeline, until
from servers import Cluster, running_cluster

from services.kernel import topology
from services.kernel.nats_faults import NATS_FAULTS

pytestmark = [pytest.mark.chaos]

FLAGS = ("--latency-ms", "100", "--jitter-ms", "20")
CONCURRENCY = 4
MOST_IN_HAND = 2 * CONCURRENCY
SETTINGS = {
    "CARDFLOW_NATS__REPLICAS": "3",
    "CARDFLOW_STAGE1__CONCURRENCY": str(CONCURRENCY),
    "CARDFLOW_STAGE2__CONCURRENCY": str(CONCURRENCY),
    "CARDFLOW_RETRY__MAX_ATTEMPTS": "20",
}
GAP_S = 15.0
BATCH = "cluster"


@dataclass(frozen=True)
class Size:
    terms: int
    terms_per_s: float
    leaders: Sequence[str]
    rolling: bool


@pytest.mark.parametrize(
    "size",
    [
        pytest.param(
            Size(100, 20, [topology.SUBMISSIONS.name], rolling=False),
            id="short",
            marks=pytest.mark.timeout(180),
        ),
        pytest.param(
            Size(1000, 15, [topology.TERMS.name, topology.SUBMISSIONS.name], rolling=True),
            id="long",
            marks=[pytest.mark.long, pytest.mark.timeout(600)],
        ),
    ],
)
def test_leaders_killed_and_nodes_restarted_under_load_lose_and_double_nothing(
    data: Path, seed: int, size: Size
) -> None:
    """P1–P3, and a publisher is never kept waiting for 15 s. At most what both stages can have in
    hand is asked for again at each end of a node.
    """
    terms = words(seed, size.terms)
    gap: dict[str, float] = {}
    with running_cluster(data) as cluster:
        flags = (*FLAGS, "--nats", cluster.url)
        with running_pipeline(data, *flags, settings=SETTINGS) as pipeline:
            open_batch(cluster.url, BATCH, len(terms))
            with _publishing(cluster, terms, size.terms_per_s) as publisher:
                for stream in size.leaders:
                    _wait_for_work(cluster, publisher)
                    victim = cluster.leader_of(stream)
                    cluster.nodes[victim].end(kill=True)
                    _wait_for_progress(publisher)
                    cluster.start(victim)
                    cluster.wait_until_in_step()
                    gap[f"leader of {stream} killed"] = publisher.take_longest_gap()
                for name in cluster.nodes if size.rolling else ():
                    cluster.nodes[name].end(kill=False)
                    cluster.start(name)
                    cluster.wait_until_in_step()
                    gap[f"{name} restarted"] = publisher.take_longest_gap()
            wait_until_completed(pipeline, BATCH, within_s=60)
            in_hand = MOST_IN_HAND * len(gap)
            evidence = assert_promises(pipeline, BATCH, terms, in_flight_at_kills=in_hand)
            restarted = pipeline.deaths()
    record_figures("cluster of three", evidence, seed=seed, longest_publish_gap_s=gap)
    assert max(gap.values()) < GAP_S
    assert restarted == []


def _wait_for_work(cluster: Cluster, publisher: Publisher) -> None:
    """Until the pipeline is at it, with more to come."""
    begun = len(finished(cluster.url, BATCH))
    until(
        lambda: len(finished(cluster.url, BATCH)) > begun or publisher.done,
        within_s=30,
        what="terms pass",
    )


def _wait_for_progress(publisher: Publisher) -> None:
    """Until the publisher's terms are taken again."""
    acknowledged = publisher.acknowledged
    until(
        lambda: publisher.acknowledged > acknowledged or publisher.done,
        within_s=2 * GAP_S,
        what="a term is taken",
    )


@dataclass
class Publisher:
    """Publishes at a steady rate, each term until it is acknowledged."""

    acknowledged: int = 0
    done: bool = False
    _gaps: list[float] = field(default_factory=lambda: [0.0])

    async def publish(self, url: str, terms: Sequence[str], per_s: float) -> None:
        nc = await nats.connect(
            url.split(","), max_reconnect_attempts=-1, reconnect_time_wait=0.2, error_cb=_pass
        )
        js = nc.jetstream(timeout=2)
        last = started = time.monotonic()
        for number, term in enumerate(terms):
            await asyncio.sleep(max(0.0, started + number / per_s - time.monotonic()))
            while True:
                try:
                    await js.publish(
                        topology.submit_subject(BATCH),
                        term.encode(),
                        headers={"Nats-Msg-Id": f"{BATCH}-{number}"},
                    )
                    break
                except NATS_FAULTS:
                    await asyncio.sleep(0.05)
            self._gaps.append(time.monotonic() - last)
            last = time.monotonic()
            self.acknowledged += 1
        self.done = True
        await nc.close()

    def take_longest_gap(self) -> float:
        """Seconds between two acknowledgements, at most, since this was asked last."""
        gaps, self._gaps = self._gaps, [0.0]
        return round(max(gaps), 2)


async def _pass(_error: Exception) -> None:
    """A lost connection is what is meant to happen."""


@contextmanager
def _publishing(cluster: Cluster, terms: Sequence[str], per_s: float) -> Iterator[Publisher]:
    """Publishes meanwhile; leaves when all is acknowledged."""
    publisher = Publisher()
    thread = threading.Thread(
        target=lambda: asyncio.run(publisher.publish(cluster.url, terms, per_s))
    )
    thread.start()
    try:
        yield publisher
    finally:
        thread.join()
