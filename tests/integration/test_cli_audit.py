"""`cardflow audit` on a real server: what is in order balances, what is not is named by its id."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import Result
from nats.js import JetStreamContext
from typer.testing import CliRunner

from services.cli.letters.letters import find_letter
from services.cli.letters.replaying import discard
from services.cli.main import cli
from services.kernel import topology
from services.kernel.contracts.analysis import Analysis
from services.kernel.contracts.attempt import Attempt, AttemptHistory
from services.kernel.contracts.card import Card, CardsFinished
from services.kernel.contracts.dead_letter import DeadLetter
from services.kernel.contracts.identity import refusal_id, term_id
from services.kernel.contracts.provenance import StageProvenance, Usage
from services.simulator.app import SimulatorSettings, build_app
from services.simulator.server import build_server, listen

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
COST = Decimal("0.0002")
BATCH = "b1"

Audit = Callable[..., Awaitable[Result]]


@pytest.fixture
def audit(nats_server: str) -> Audit:
    """The command, in a thread of its own: it brings its own event loop."""

    async def run(*arguments: str) -> Result:
        place = () if "--data" in arguments else ("--nats", nats_server)
        return await asyncio.to_thread(CliRunner().invoke, cli, ["audit", *arguments, *place])

    return run


def problems(result: Result, batch: str = BATCH) -> dict[str, list[str]]:
    """Identity → ids of one batch, and that the exit code agrees."""
    answer = json.loads(result.stdout)
    assert result.exit_code == (0 if answer["balanced"] else 1)
    [found] = [b for b in answer["batches"] if b["batch"] == batch]
    return {p["identity"]: p["ids"] for p in found["problems"]}


class Books:
    """Writes on the streams what the services would have written."""

    def __init__(self, js: JetStreamContext) -> None:
        self._js = js

    async def submit(self, payload: str | bytes, *, subject: str = f"terms.submit.{BATCH}") -> str:
        """The id that the submission has as a term."""
        data = payload.encode() if isinstance(payload, str) else payload
        await self._js.publish(subject, data)
        return term_id(data.decode("utf-8", "replace"), None)

    async def accept(self, id_: str, *, batch: str = BATCH) -> None:
        await self._js.publish(topology.accepted_subject(batch, id_), b"{}")

    async def analyze(self, id_: str) -> None:
        await self._js.publish(topology.analyzed_subject(BATCH, id_), b"{}")

    async def pay(self, id_: str, stage: str, *attempts: Attempt, batch: str = BATCH) -> None:
        bucket = await self._js.key_value(topology.ATTEMPTS.name)
        history = AttemptHistory(attempts=attempts or (_billed(f"{stage}-{id_}"),))
        await bucket.put(topology.attempts_key(stage, batch, id_), history.to_bytes())

    async def finish(self, id_: str, *, cached: bool = False, **values: Any) -> None:
        cards = _cards(id_, cached=cached, **values)
        await self._js.publish(topology.finished_subject(BATCH, id_), cards.to_bytes())

    async def refuse(self, payload: str | bytes, *, batch: str = BATCH) -> str:
        data = payload.encode() if isinstance(payload, str) else payload
        await self.bury(refusal_id(data), "ingest", batch=batch)
        return refusal_id(data)

    async def bury(
        self, id_: str, service: str, *, batch: str = BATCH, cancelled: bool = False
    ) -> None:
        subject_of = topology.cancelled_subject if cancelled else topology.dead_subject
        letter = DeadLetter(
            letter_id=id_,
            service=service,
            batch=batch,
            reason="test",
            error="Error",
            message="given up",
            original_subject=f"terms.submit.{batch}",
            original_payload=b"",
            first_at=NOON,
            last_at=NOON,
        )
        await self._js.publish(subject_of(service, batch, id_), letter.to_bytes())

    async def walk(self, term: str, *, cached: bool = False) -> str:
        """A term's whole way."""
        id_ = await self.submit(term)
        await self.accept(id_)
        await self.analyze(id_)
        if not cached:
            await self.pay(id_, "stage1")
            await self.pay(id_, "stage2")
        await self.finish(id_, cached=cached)
        return id_

    async def answer_all(self, *services: topology.ServiceName) -> None:
        """The services' consumers have acked whatever is on their streams."""
        for name in services or topology.SERVICES:
            consumer = topology.CONSUMERS[name]
            subscription = await self._js.pull_subscribe_bind(consumer.durable, consumer.stream)
            waiting = (await subscription.consumer_info()).num_pending or 0
            while waiting:
                messages = await subscription.fetch(waiting, timeout=5)
                for message in messages:
                    await message.ack_sync()
                waiting -= len(messages)


def _billed(fingerprint: str, **values: Any) -> Attempt:
    defaults = {"outcome": "billed", "cost_usd": COST, "started_at": NOON}
    return Attempt.model_validate({"fingerprint": fingerprint, **defaults, **values})


def _stage(*, cached: bool, calls: int = 1) -> StageProvenance:
    return StageProvenance(
        model="m",
        provider="simulated",
        fingerprint="f",
        prompt_version="1",
        cached=cached,
        attempts=calls,
        calls=0 if cached else calls,
        usage=Usage(),
        cost_usd=Decimal(0) if cached else COST * calls,
        started_at=NOON,
        finished_at=NOON,
    )


def _cards(id_: str, *, cached: bool, calls: int = 1, **values: Any) -> CardsFinished:
    stage = _stage(cached=cached, calls=calls)
    text = dict.fromkeys(Analysis.model_fields, "x")
    numbers = {"term_number": 1, "ipa": "[x]", "pos": "noun", "korean_keywords": ["x"]}
    absent = dict.fromkeys(("comparison", "homonyms"))
    card = {"position": 1, "term_number": 1, "tab_name": "Scene", "tags": ["x"]}
    card |= dict.fromkeys(("term", "primer", "front", "back"), "x")
    defaults: dict[str, Any] = {
        "batch": BATCH,
        "term_id": id_,
        "term": "x",
        "position": 1,
        "deck": "d",
        "pos": "noun",
        "analysis": Analysis.model_validate({**text, **numbers, **absent}),
        "cards": (Card.model_validate(card),),
        "stage1": stage,
        "stage2": stage,
        "submitted_at": NOON,
        "finished_at": NOON,
    }
    return CardsFinished.model_validate({**defaults, **values})


@pytest.fixture
def books(js: JetStreamContext) -> Books:
    return Books(js)


# Terms --------------------------------------------------------------------------------------------


async def test_nothing_at_all_balances(js: JetStreamContext, audit: Audit) -> None:
    answer = json.loads((await audit("--json")).stdout)
    assert (answer["balanced"], answer["complete"], answer["batches"]) == (True, True, [])


async def test_a_batch_that_ended_balances_and_is_complete(books: Books, audit: Audit) -> None:
    await books.walk("책")
    await books.walk("물", cached=True)
    await books.submit("책")
    await books.submit("hello")
    await books.refuse("hello")
    for term, stage in (("밥", "stage1"), ("집", "stage2")):
        id_ = await books.submit(term)
        await books.accept(id_)
        await books.pay(id_, "stage1", _billed("f", error="unfit"))
        if stage == "stage2":
            await books.analyze(id_)
        await books.bury(id_, stage)
    await books.answer_all()
    result = await audit(BATCH, "--json")
    answer = json.loads(result.stdout)
    assert result.exit_code == 0, result.output
    assert (answer["balanced"], answer["complete"]) == (True, True)
    [batch] = answer["batches"]
    assert (batch["submitted"], batch["accepted"], batch["refused"]) == (6, 4, 1)
    assert (batch["analyzed"], batch["finished"], batch["dead"]) == (3, 2, 2)
    assert (answer["calls"], answer["billed"], answer["cached"]) == (4, 4, 2)
    assert answer["cost_usd"] == pytest.approx(0.0008)
    shown = await audit()
    assert "It balances, and everything has ended." in shown.stdout


async def test_a_discarded_dead_letter_still_accounts_for_its_term(
    js: JetStreamContext, books: Books, audit: Audit
) -> None:
    await books.submit("hello")
    await books.refuse("hello")
    await books.answer_all()
    letter = await find_letter(js, refusal_id(b"hello"))
    await discard(js, letter, note="no", at=NOON)
    assert problems(await audit("--json")) == {}


async def test_work_in_flight_balances_and_is_not_complete(books: Books, audit: Audit) -> None:
    accepted = await books.submit("책")
    await books.accept(accepted)
    analyzed = await books.submit("물")
    await books.accept(analyzed)
    await books.analyze(analyzed)
    await books.submit("밥")
    result = await audit("--json")
    assert problems(result) == {}
    answer = json.loads(result.stdout)
    assert not answer["complete"]
    assert answer["batches"][0]["in_flight_ids"] == sorted([accepted, analyzed])
    assert "still to end" in (await audit()).stdout


async def test_a_submission_that_ingest_acked_and_left_is_lost(books: Books, audit: Audit) -> None:
    lost = await books.submit("책")
    await books.answer_all("ingest")
    await books.submit("물")
    assert problems(await audit("--json")) == {"submissions": [lost]}


async def test_a_term_that_a_stage_acked_and_left_is_lost(books: Books, audit: Audit) -> None:
    after_stage1 = await books.submit("책")
    await books.accept(after_stage1)
    after_stage2 = await books.submit("물")
    await books.accept(after_stage2)
    await books.analyze(after_stage2)
    await books.answer_all()
    assert problems(await audit("--json")) == {"terms": sorted([after_stage1, after_stage2])}


async def test_what_a_replay_took_off_its_stream_is_not_called_lost(
    js: JetStreamContext, books: Books, audit: Audit
) -> None:
    id_ = await books.submit("책")
    await books.accept(id_)
    await books.bury(id_, "stage1")
    await books.answer_all()
    await js.purge_stream("TERMS", subject=topology.accepted_subject(BATCH, id_))
    result = await audit("--json")
    assert problems(result)["terms"] == [id_]
    assert "replay it again" in result.stdout


async def test_cancelled_terms_have_ended_and_stand_in_a_column_of_their_own(
    books: Books, audit: Audit
) -> None:
    await books.walk("책")
    for term, stage in (("밥", "stage1"), ("집", "stage2")):
        id_ = await books.submit(term)
        await books.accept(id_)
        if stage == "stage2":
            await books.pay(id_, "stage1", _billed("f"))
            await books.analyze(id_)
        await books.bury(id_, stage, cancelled=True)
    await books.answer_all()
    result = await audit(BATCH, "--json")
    answer = json.loads(result.stdout)
    assert (answer["balanced"], answer["complete"]) == (True, True), result.output
    [batch] = answer["batches"]
    counts = [batch[name] for name in ("accepted", "finished", "dead", "cancelled", "in_flight")]
    assert counts == [3, 1, 0, 2, 0]
    assert "cancelled" in (await audit()).stdout


async def test_finished_and_cancelled_at_once_is_named(books: Books, audit: Audit) -> None:
    id_ = await books.walk("책")
    await books.bury(id_, "stage2", cancelled=True)
    await books.answer_all()
    result = await audit("--json")
    assert problems(result)["terms"] == [id_]
    assert "cardflow cancel BATCH --undo" in result.stdout


async def test_finished_and_dead_at_once_is_named(books: Books, audit: Audit) -> None:
    id_ = await books.walk("책")
    await books.bury(id_, "stage2")
    await books.answer_all()
    result = await audit()
    assert result.exit_code == 1
    assert id_ in result.stdout
    assert "finished and dead at once" in result.stdout
    assert "It does not balance." in result.stdout


async def test_a_card_under_the_wrong_id_or_unreadable_is_named(
    js: JetStreamContext, books: Books, audit: Audit
) -> None:
    id_ = await books.walk("책", cached=True)
    wrong = await books.submit("물")
    await books.accept(wrong)
    await books.analyze(wrong)
    await books.finish(wrong, cached=True, term_id=id_)
    unreadable = await books.submit("밥")
    await books.accept(unreadable)
    await books.analyze(unreadable)
    await js.publish(topology.finished_subject(BATCH, unreadable), b'{"version": 2}')
    await books.answer_all()
    assert problems(await audit("--json")) == {"outputs": sorted([wrong, unreadable])}


async def test_subjects_that_name_no_batch_are_accounted_for_as_unreadable(
    books: Books, audit: Audit
) -> None:
    await books.submit("책", subject="terms.submit.a.b")
    await books.refuse("책", batch=topology.UNREADABLE_BATCH)
    await books.submit(b"\xff", subject="terms.submit")
    await books.refuse(b"\xff", batch=topology.DEFAULT_BATCH)
    await books.answer_all("ingest")
    for batch in ("unreadable", "default"):
        assert problems(await audit(batch, "--json"), batch) == {}
    answer = json.loads((await audit("--json")).stdout)
    assert [b["batch"] for b in answer["batches"]] == ["default", "unreadable"]
    assert answer["complete"]


async def test_forgotten_submissions_are_a_note_no_problem(
    js: JetStreamContext, books: Books, audit: Audit
) -> None:
    await books.walk("책")
    await books.walk("물")
    await books.answer_all()
    await js.purge_stream("SUBMISSIONS", seq=2)
    result = await audit("--json")
    assert problems(result) == {}
    assert json.loads(result.stdout)["batches"][0]["notes"]
    assert "have passed their age" in (await audit()).stdout


async def test_many_ids_are_cut_short_for_people_only(books: Books, audit: Audit) -> None:
    for number in range(25):
        await books.accept(f"ghost{number:02}")
    shown = (await audit()).stdout
    assert "(25)" in shown
    assert "and 5 more" in shown
    assert len(problems(await audit("--json"))["submissions"]) == 25


async def test_without_consumers_everything_is_awaited(
    js: JetStreamContext, books: Books, audit: Audit
) -> None:
    await books.accept(await books.submit("책"))
    for consumer in topology.CONSUMERS.values():
        await js.delete_consumer(consumer.stream, consumer.durable)
    assert problems(await audit("--json")) == {}


@pytest.mark.parametrize(
    ("batch", "code", "message"), [("nobody", 1, "no stream knows"), ("a.b", 2, "no batch name")]
)
async def test_a_batch_that_is_not_there_is_no_balance(
    js: JetStreamContext, audit: Audit, batch: str, code: int, message: str
) -> None:
    result = await audit(batch)
    assert result.exit_code == code
    assert message in result.stderr


# Money --------------------------------------------------------------------------------------------


async def test_a_card_that_hides_a_call_is_named(books: Books, audit: Audit) -> None:
    id_ = await books.walk("책")
    await books.pay(id_, "stage2", _billed("f1", error="unfit"), _billed("f2"))
    await books.answer_all()
    assert problems(await audit("--json")) == {"money": [id_]}


async def test_a_deleted_record_of_attempts_counts_as_none(
    js: JetStreamContext, books: Books, audit: Audit
) -> None:
    id_ = await books.walk("책", cached=True)
    await books.pay(id_, "stage1")
    bucket = await js.key_value(topology.ATTEMPTS.name)
    await bucket.delete(topology.attempts_key("stage1", BATCH, id_))
    await books.answer_all()
    assert problems(await audit("--json")) == {}


async def test_one_completion_paid_in_two_batches_is_a_problem_of_all(
    books: Books, audit: Audit
) -> None:
    await books.walk("책")
    await books.answer_all()
    await books.pay("x", "stage1", _billed("twice"), batch="b2")
    await books.pay("y", "stage1", _billed("twice"), batch="b3")
    await books.pay("z", "ingest", Attempt(outcome="started", started_at=NOON))
    result = await audit(BATCH, "--json")
    assert result.exit_code == 1
    [problem] = json.loads(result.stdout)["problems"]
    assert problem["identity"] == "fingerprints"
    assert problem["ids"] == ["stage1/b2/x", "stage1/b3/y"]
    assert "all batches: 2 billed successes" in (await audit(BATCH)).stdout


# The provider -------------------------------------------------------------------------------------


@asynccontextmanager
async def simulator(started_at: float = 0) -> AsyncIterator[str]:
    """The base URL of a simulator whose counters began at that time."""
    sock = listen("127.0.0.1", 0)
    times = iter([started_at])
    app = build_app(SimulatorSettings(latency_ms=0), clock=lambda: next(times, time.time()))
    server = build_server(app)
    serving = asyncio.create_task(server.serve(sockets=[sock]))
    try:
        yield f"http://127.0.0.1:{sock.getsockname()[1]}/api/v1"
    finally:
        server.should_exit = True
        await serving


async def ask(base_url: str) -> Decimal:
    """One billed call; its cost."""
    body = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
    async with httpx.AsyncClient() as client:
        answer = await client.post(f"{base_url}/chat/completions", json=body)
    return Decimal(str(answer.json()["usage"]["cost"]))


def endpoints(data: Path, nats_url: str, base_url: str, kind: str = "simulated") -> str:
    provider = {"kind": kind, "base_url": base_url}
    (data / "endpoints.json").write_text(json.dumps({"nats_url": nats_url, "provider": provider}))
    return str(data)


async def test_the_simulator_saw_and_charged_what_was_recorded(
    books: Books, audit: Audit, nats_server: str, tmp_path: Path
) -> None:
    async with simulator() as base_url:
        cost = await ask(base_url)
        await books.pay("x", "stage1", _billed("f", cost_usd=cost))
        data = endpoints(tmp_path, nats_server, base_url)
        result = await audit("--data", data, "--json")
        provider = json.loads(result.stdout)["provider"]
        assert (result.exit_code, provider["comparable"]) == (0, True)
        assert (provider["calls_seen"], provider["calls_recorded"]) == (1, 1)
        assert provider["charged_usd"] == provider["cost_usd"] == float(cost)
        assert "it saw 1 calls" in (await audit("--data", data)).stdout

        await ask(base_url)
        result = await audit("--data", data, "--json")
        answer = json.loads(result.stdout)
        assert (result.exit_code, answer["provider"]["balanced"]) == (1, False)
        assert [p["identity"] for p in answer["problems"]] == ["provider", "provider"]


async def test_a_simulator_that_began_after_the_first_call_is_not_compared(
    books: Books, audit: Audit, nats_server: str, tmp_path: Path
) -> None:
    await books.pay("x", "stage1")
    async with simulator(started_at=time.time()) as base_url:
        data = endpoints(tmp_path, nats_server, base_url)
        result = await audit("--data", data, "--json")
        provider = json.loads(result.stdout)["provider"]
        assert (result.exit_code, provider["comparable"]) == (0, False)
        assert "restarted" in provider["reason"]
        assert "not comparable" in (await audit("--data", data)).stdout


async def test_a_simulator_that_is_away_is_not_compared(
    books: Books, audit: Audit, nats_server: str, tmp_path: Path
) -> None:
    data = endpoints(tmp_path, nats_server, "http://127.0.0.1:1/api/v1")
    result = await audit("--data", data, "--json")
    assert result.exit_code == 0
    assert "did not answer" in json.loads(result.stdout)["provider"]["reason"]


async def test_a_server_that_is_no_simulator_is_not_compared(
    books: Books, audit: Audit, nats_server: str, tmp_path: Path
) -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/api/v1"
        data = endpoints(tmp_path, nats_server, base_url)
        result = await audit("--data", data, "--json")
    assert "is it the simulator?" in json.loads(result.stdout)["provider"]["reason"]


async def test_a_server_without_our_streams_cannot_be_audited(
    nats_server: str, audit: Audit
) -> None:
    result = await audit()
    assert result.exit_code == 2
    assert "cardflow provision" in result.stderr


@pytest.mark.parametrize(
    ("kind", "base_url"),
    [("openrouter", "https://openrouter.ai/api/v1"), ("simulated", "http://192.0.2.1/api/v1")],
)
async def test_no_other_provider_is_asked(
    books: Books, audit: Audit, nats_server: str, tmp_path: Path, kind: str, base_url: str
) -> None:
    data = endpoints(tmp_path, nats_server, base_url, kind)
    assert json.loads((await audit("--data", data, "--json")).stdout)["provider"] is None
