"""The same message again: by its publisher, and by the server."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Sequence

import pytest
from looking import on_streams, submit, wait_until_completed
from nats.js import JetStreamContext
from promises import Evidence, assert_promises, record_figures, words
from running_pipeline import Pipeline, running_pipeline, until

from services.kernel import topology
from services.kernel.provisioning.provision import consumer_config
from services.kernel.settings import NatsSettings

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(180)]

TERMS = 20
BATCH = "again"
TIMES = 5


@pytest.fixture(scope="module")
def terms() -> list[str]:
    return words(20260504, TERMS)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory, terms: Sequence[str]) -> Iterator[Pipeline]:
    """A pipeline that is done with its batch."""
    data = tmp_path_factory.mktemp("again") / "data"
    with running_pipeline(data, "--latency-ms", "5", "--jitter-ms", "0") as running:
        submit(running.nats_url, BATCH, list(terms))
        wait_until_completed(running, BATCH, within_s=30)
        yield running


@pytest.mark.parametrize(
    ("within", "ids"),
    [
        ("inside the duplicate window", ["the-same"] * TIMES),
        ("outside the duplicate window", [f"another-{n}" for n in range(TIMES)]),
        ("without an id", [None] * TIMES),
    ],
)
def test_a_term_published_again_makes_no_card_and_no_call(
    pipeline: Pipeline, terms: Sequence[str], within: str, ids: Sequence[str | None]
) -> None:
    """P2, P3: what was done stays done, whoever publishes it again."""
    calls = pipeline.simulator()["calls"]
    on_streams(pipeline.nats_url, lambda js: _publish_again(js, terms, ids))
    _until_all_answered(pipeline)
    evidence = _assert_as_before(pipeline, terms, calls)
    record_figures(f"published {TIMES} times {within}", evidence)


def test_terms_published_five_times_at_once_pass_once(
    pipeline: Pipeline, seed: int, dice: random.Random
) -> None:
    """P2, P3: copies of a term that are under way at the same time share one call a stage."""
    terms = words(seed + 1, TERMS)
    copies = terms * TIMES
    dice.shuffle(copies)
    submit(pipeline.nats_url, "copies", copies)
    wait_until_completed(pipeline, "copies", within_s=30)
    evidence = assert_promises(pipeline, "copies", terms)
    assert evidence.calls == 2 * TERMS
    record_figures(f"published {TIMES} times at once", evidence, seed=seed)


@pytest.mark.parametrize(
    "services",
    [
        pytest.param(topology.SERVICES, id="all at once"),
        *(pytest.param([name], id=name, marks=pytest.mark.long) for name in topology.SERVICES),
    ],
)
def test_a_whole_stream_delivered_again_makes_no_card_and_no_call(
    pipeline: Pipeline, terms: Sequence[str], services: Sequence[topology.ServiceName]
) -> None:
    """P2, P3: a consumer that is made anew hands out its whole stream."""
    calls = pipeline.simulator()["calls"]

    async def make_anew(js: JetStreamContext) -> None:
        for service in services:
            consumer = topology.CONSUMERS[service]
            await js.delete_consumer(consumer.stream, service)
            await js.add_consumer(consumer.stream, consumer_config(consumer, NatsSettings()))

    on_streams(pipeline.nats_url, make_anew)
    for service in services:
        _until_delivered(pipeline, service)
    _until_all_answered(pipeline)
    evidence = _assert_as_before(pipeline, terms, calls)
    record_figures(f"whole streams delivered again to {', '.join(services)}", evidence)


async def _publish_again(
    js: JetStreamContext, terms: Sequence[str], ids: Sequence[str | None]
) -> None:
    subject = topology.submit_subject(BATCH)
    for id_ in ids:
        for term in terms:
            headers = {"Nats-Msg-Id": f"{id_}-{term.encode().hex()}"} if id_ else None
            await js.publish(subject, term.encode(), headers=headers)


def _assert_as_before(pipeline: Pipeline, terms: Sequence[str], calls: int) -> Evidence:
    evidence = assert_promises(pipeline, BATCH, terms)
    assert evidence.calls == 2 * TERMS
    assert pipeline.simulator()["calls"] == calls
    return evidence


def _until_delivered(pipeline: Pipeline, service: topology.ServiceName) -> None:
    """Until the service was handed as many messages as its stream holds."""
    consumer = topology.CONSUMERS[service]

    async def is_delivered(js: JetStreamContext) -> bool:
        messages = (await js.stream_info(consumer.stream)).state.messages
        info = await js.consumer_info(consumer.stream, service)
        return info.delivered is not None and info.delivered.consumer_seq >= messages

    until(
        lambda: on_streams(pipeline.nats_url, is_delivered),
        within_s=30,
        what=f"{service} was handed its whole stream",
    )


def _until_all_answered(pipeline: Pipeline) -> None:
    """Until nobody has anything left to fetch or to answer, first to last."""

    async def left(js: JetStreamContext) -> int:
        infos = await asyncio.gather(
            *(js.consumer_info(c.stream, c.durable) for c in topology.CONSUMERS.values())
        )
        return sum((i.num_pending or 0) + (i.num_ack_pending or 0) for i in infos)

    until(
        lambda: on_streams(pipeline.nats_url, left) == 0, within_s=30, what="everything is answered"
    )
