"""`cardflow submit` on a real server: what it publishes, in which order, and how it waits."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nats.errors
import pytest
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import PubAck
from nats.js.errors import APIError, NoStreamResponseError, ServiceUnavailableError
from pipeline_by_hand import (
    NOON,
    cardflow,
    complete,
    finish,
    ingest,
    open_batch,
    opened,
    report,
    submissions,
    until,
)

from services.cli.submitting.payloads import Payload, read_payloads
from services.cli.submitting.publishing import Publication, publish_submission
from services.cli.submitting.waiting import wait_for_batch
from services.kernel import topology
from services.kernel.errors import Outage
from services.kernel.stream.trace import Trace

HEADERS = {topology.TRACEPARENT, "Nats-Msg-Id"}


@pytest.fixture
def words(tmp_path: Path) -> Path:
    path = tmp_path / "words.csv"
    path.write_text("no,term,meaning\n,책,book\n9,물,water\n,hello,greeting\n,,nothing\n")
    return path


async def test_each_row_goes_to_the_batch_with_its_place_and_a_trace(
    nats_server: str, js: JetStreamContext, words: Path
) -> None:
    before = datetime.now(UTC)
    arguments = ("--batch", "b1", "--deck", "Mine", "--nats", nats_server, "--json")
    result = await cardflow("submit", str(words), *arguments)
    assert result.exit_code == 0, result.output

    messages = {json.loads(m.data or b"")["term"]: m for m in await submissions(js)}
    assert {m.subject for m in messages.values()} == {"terms.submit.b1"}
    fields = {term: json.loads(m.data or b"") for term, m in messages.items()}
    assert {term: f["position"] for term, f in fields.items()} == {"책": 1, "물": 9, "hello": 3}
    assert fields["책"] == {"term": "책", "hint": "book", "deck": "Mine", "position": 1}
    headers = [m.headers or {} for m in messages.values()]
    assert all(set(each) == HEADERS for each in headers)
    traces = {Trace.of(each).trace_id for each in headers}
    assert traces == {each["Nats-Msg-Id"] for each in headers}
    assert len(traces) == 3

    event = await opened(js, "b1")
    assert (event.expected, event.deck) == (3, "Mine")
    assert event.opened_at >= before
    answer = json.loads(result.stdout)
    problems = answer.pop("problems")
    assert answer == {
        "batch": "b1",
        "published": 3,
        "refused_locally": 1,
        "expected_refusals": 1,
        "refused_by_server": 0,
        "broken_off": None,
        "expected": 3,
    }
    assert [(p["line"], p["published"]) for p in problems] == [(5, False), (4, True)]


async def test_the_batch_is_opened_before_its_first_term(
    nats_server: str, js: JetStreamContext, words: Path
) -> None:
    await cardflow("submit", str(words), "--batch", "b1", "--nats", nats_server)
    [first, *_] = await submissions(js)
    event = await js.get_last_msg(topology.BATCHES.name, "batches.b1.opened")
    assert event.time is not None
    assert first.time is not None
    assert event.time <= first.time


async def test_people_are_told_the_batch_and_what_will_be_refused(
    nats_server: str, js: JetStreamContext, words: Path
) -> None:
    result = await cardflow("submit", str(words), "--nats", nats_server)
    assert result.exit_code == 0
    assert "Published 3 of 3 terms to batch words-" in result.stdout
    assert "1 term held nothing to publish:\n  line 5: ,,nothing: no term" in result.stdout
    assert "1 term will be refused:\n  line 4: hello: term: not_korean" in result.stdout
    assert "cardflow status words-" in result.stdout


async def test_a_second_submission_adds_to_the_batch_and_goes_on_counting(
    nats_server: str, js: JetStreamContext
) -> None:
    submit = ("submit", "-", "--batch", "b1", "--nats", nats_server)
    await cardflow(*submit, input="책\n물\n")
    result = await cardflow(*submit, "--json", input="꽃잎\n")
    assert json.loads(result.stdout)["expected"] == 3
    assert (await opened(js, "b1")).expected == 3
    positions = {
        (f := json.loads(m.data or b""))["term"]: f["position"] for m in await submissions(js)
    }
    assert positions["꽃잎"] == 3


@pytest.mark.parametrize(
    ("declared", "arrived", "expected"),
    [
        (None, 0, 1),
        (None, 2, 3),  # terms of a publisher that opened nothing
        (5, 0, 6),  # declared by somebody who has not begun to send
        (5, 5, 6),
        (5, 2, 3),  # a submission that was killed: its rest never comes
        (2, 5, 6),
    ],
)
async def test_what_a_batch_expects_is_what_was_declared_or_has_arrived(
    js: JetStreamContext, declared: int | None, arrived: int, expected: int
) -> None:
    if declared is not None:
        await open_batch(js, "b1", declared)
    for _ in range(arrived):
        await js.publish("terms.submit.b1", "책".encode())
    publication = await publish_one(js)
    assert publication == Publication(expected=expected, published=1)
    assert (await opened(js, "b1")).expected == expected
    [*_, last] = await submissions(js)
    assert json.loads(last.data or b"")["position"] == expected


async def test_a_submission_under_way_is_waited_for(js: JetStreamContext) -> None:
    await open_batch(js, "b1", 3)
    await js.publish("terms.submit.b1", "책".encode())
    other = asyncio.create_task(publish_one(js, arrival_s=1.0))
    for term in ("물", "눈"):
        await js.publish("terms.submit.b1", term.encode())
    assert (await other).expected == 4


async def publish_one(js: JetStreamContext, *, arrival_s: float = 0.0) -> Publication:
    payload = Payload("-", 1, '{"term": "불"}'.encode(), is_placed=False)
    return await publish_submission(js, "b1", [payload], deck=None, now=NOON, arrival_s=arrival_s)


async def test_a_thousand_rows_arrive_once_each(
    nats_server: str, js: JetStreamContext, tmp_path: Path
) -> None:
    terms = [f"{chr(0xAC00 + i)}나" for i in range(1_000)]
    path = tmp_path / "many.txt"
    path.write_text("\n".join(terms))
    result = await cardflow("submit", str(path), "--nats", nats_server, "--json")
    assert json.loads(result.stdout)["published"] == 1_000
    arrived = [json.loads(m.data or b"") for m in await submissions(js)]
    assert {f["term"]: f["position"] for f in arrived} == {t: i + 1 for i, t in enumerate(terms)}
    assert len(arrived) == 1_000


async def test_the_largest_row_that_is_sent_fits_the_stream(
    js: JetStreamContext, tmp_path: Path
) -> None:
    path = tmp_path / "words.jsonl"
    empty = len('{"term": "x", "hint": ""}')
    longest = topology.SUBMISSION_MAX_BYTES - 256 - empty
    path.write_text(
        "".join(json.dumps({"term": "x", "hint": "h" * n}) + "\n" for n in (longest, longest + 1))
    )
    fits = [entry for entry in read_payloads([str(path)]) if isinstance(entry, Payload)]
    assert len(fits) == 1
    publication = await publish_submission(js, "b1", fits, deck=None, now=NOON)
    assert publication.published == 1


async def test_a_full_stream_refuses_the_rest_and_the_size_is_set_right(
    nats_server: str, js: JetStreamContext, tmp_path: Path
) -> None:
    config = (await js.stream_info(topology.SUBMISSIONS.name)).config
    config.max_bytes = 20_000
    await js.update_stream(config)
    path = tmp_path / "many.jsonl"
    path.write_text('{"term": "책", "hint": "' + "h" * 400 + '"}\n' * 1)
    path.write_text((path.read_text()) * 500)
    result = await cardflow(
        "submit", str(path), "--batch", "b1", "--nats", nats_server, "--json", "--wait"
    )
    assert result.exit_code == 1
    answer = json.loads(result.stdout)
    assert 0 < answer["published"] < 100
    assert answer["refused_by_server"] >= 1
    assert "maximum bytes exceeded" in answer["broken_off"]
    assert "status" not in answer
    assert (await opened(js, "b1")).expected == answer["published"] == len(await submissions(js))


FULL = APIError(code=503, err_code=10077, description="maximum bytes exceeded")
TOO_LARGE = APIError(code=400, err_code=10054, description="message size exceeds maximum allowed")
BUSY = ServiceUnavailableError(code=503, err_code=10008, description="temporarily unavailable")
CLOSED = nats.errors.ConnectionClosedError()


class Faulty:
    """JetStream, but publishing a term or a `size` first raises the errors given for it."""

    def __init__(self, js: JetStreamContext, faults: Mapping[str, Sequence[Exception | None]]):
        self._js = js
        self._faults = {key: list(errors) for key, errors in faults.items()}
        self.sizes: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._js, name)

    async def publish(self, subject: str, body: bytes, **options: Any) -> PubAck:
        event = json.loads(body)
        errors = self._faults.get(event.get("term", "size"), [])
        if errors and (error := errors.pop(0)):
            raise error
        if "expected" in event:
            self.sizes.append(event["expected"])
        return await self._js.publish(subject, body, **options)


async def publish_terms(js: Faulty, *terms: str) -> Publication:
    payloads = [
        Payload("-", line, json.dumps({"term": term}).encode(), is_placed=False)
        for line, term in enumerate(terms, start=1)
    ]
    return await publish_submission(js, "b1", payloads, deck=None, now=NOON)  # type: ignore[arg-type]


async def test_a_server_that_is_away_for_a_moment_is_asked_again(js: JetStreamContext) -> None:
    faulty = Faulty(js, {"a": [NoStreamResponseError(), BUSY]})
    assert await publish_terms(faulty, "a", "b") == Publication(expected=2, published=2)
    assert len(await submissions(js)) == 2


@pytest.mark.parametrize("fault", [TOO_LARGE, nats.errors.MaxPayloadError()])
async def test_a_row_that_the_server_refuses_costs_only_itself(
    js: JetStreamContext, fault: Exception
) -> None:
    faulty = Faulty(js, {"a": [fault]})
    publication = await publish_terms(faulty, "a", "b")
    assert publication.published == 1
    assert [payload.line for payload, _ in publication.refused] == [1]
    assert publication.broken_off is None
    assert faulty.sizes == [2, 1]


@pytest.mark.parametrize("fault", [FULL, CLOSED])
async def test_what_stops_all_rows_ends_the_publishing(
    js: JetStreamContext, fault: Exception
) -> None:
    terms = [f"t{i}" for i in range(500)]
    faulty = Faulty(js, {term: [fault] for term in terms[100:]})
    publication = await publish_terms(faulty, *terms)
    assert publication.published == 100
    assert publication.broken_off is not None
    assert len(publication.refused) <= 200
    assert faulty.sizes == [500, 100]


async def test_a_batch_that_cannot_be_opened_gets_no_term(js: JetStreamContext) -> None:
    with pytest.raises(Outage, match="maximum bytes exceeded"):
        await publish_terms(Faulty(js, {"size": [FULL]}), "a")
    assert (await js.stream_info(topology.SUBMISSIONS.name)).state.messages == 0


async def test_a_size_that_cannot_be_taken_back_hides_no_other_fault(
    js: JetStreamContext,
) -> None:
    faulty = Faulty(js, {"a": [TOO_LARGE], "size": [None, CLOSED]})
    publication = await publish_terms(faulty, "a")
    assert len(publication.refused) == 1
    assert faulty.sizes == [1]


@pytest.mark.parametrize("bound", [{"timeout_s": 0.0}, {"silence_s": 0.0}])
async def test_waiting_for_a_silent_server_ends(
    nc: Client, js: JetStreamContext, bound: dict[str, float]
) -> None:
    await nc.close()
    with pytest.raises(Outage):
        await wait_for_batch(js, "b1", interval_s=0, **bound)


async def test_a_server_without_streams_is_told_apart(nats_server: str) -> None:
    result = await cardflow("submit", "-", "--nats", nats_server, input="책\n")
    assert result.exit_code == 2
    assert "cardflow provision" in result.stderr


async def test_wait_ends_when_every_term_has_ended_and_tells_how(
    nats_server: str, js: JetStreamContext
) -> None:
    submit = ("submit", "-", "--batch", "b1", "--wait", "--timeout-s", "20", "--nats", nats_server)
    waiting = asyncio.create_task(cardflow(*submit, input="책\n물\nhello\n"))
    await ingest(js, 3)
    await finish(js, "b1", "책", "물")
    await report(js, "b1", finished=2, dead=1)
    result = await waiting
    assert result.exit_code == 0, result.output
    assert "2 terms finished, 1 dead; 4 model calls, 1 answers from the cache" in result.stdout
    assert "1 dead in ingest: not_korean" in result.stdout
    assert "hello: term: 'hello' has no Hangul" in result.stdout
    assert "cardflow export --batch b1" in result.stdout


async def test_wait_sees_the_end_of_a_batch_that_was_complete_before(
    nats_server: str, js: JetStreamContext
) -> None:
    submit = ("submit", "-", "--batch", "b1", "--nats", nats_server)
    await cardflow(*submit, input="책\n")
    await ingest(js, 1)
    await finish(js, "b1", "책")
    await report(js, "b1", finished=1)
    await complete(js, "b1", finished=1)
    again = asyncio.create_task(
        cardflow(*submit, "--wait", "--timeout-s", "20", "--json", input="책\n")
    )
    await ingest(js, 1)
    result = await again
    assert result.exit_code == 0
    status = json.loads(result.stdout)["status"]
    assert (status["submitted"], status["accepted"], status["state"]) == (2, 1, "completed")
    assert json.loads(result.stdout)["dead"] == []


async def test_wait_gives_up_when_the_time_is_over(nats_server: str, js: JetStreamContext) -> None:
    submit = ("submit", "-", "--batch", "b1", "--wait", "--timeout-s", "0.1")
    waiting = asyncio.create_task(cardflow(*submit, "--nats", nats_server, input="책\n"))
    result = await waiting
    assert result.exit_code == 1
    assert "The time is up" in result.stdout
    assert "cardflow status b1" in result.stdout


async def test_an_interrupted_submission_takes_back_what_it_did_not_send(
    js: JetStreamContext,
) -> None:
    payloads = [Payload("-", i, b'{"term": "x"}', is_placed=True) for i in range(50_000)]
    publishing = asyncio.create_task(publish_submission(js, "b1", payloads, deck=None, now=NOON))

    async def has_begun() -> bool:
        return (await js.stream_info(topology.SUBMISSIONS.name)).state.messages > 0

    await until(has_begun)
    publishing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await publishing
    arrived = (await js.stream_info(topology.SUBMISSIONS.name)).state.messages
    assert 0 <= arrived - (await opened(js, "b1")).expected <= 200
