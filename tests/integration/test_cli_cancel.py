"""`cardflow cancel` on a real server: the event, the end of the batch, and taking it up again."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import subprocess
import sys
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import Result
from letters_by_hand import NOON, a_letter, put_on_record, stands
from nats.js import JetStreamContext
from pipeline_by_hand import cardflow, cards_finished, finish, ingest, open_batch, report, until

from services.cli.letters.letters import Wanted, find_letter, read_letters
from services.cli.submitting.batch_status import batch_status, cancellation_of
from services.cli.submitting.cancelling import cancel_batch, take_up_again
from services.kernel import topology
from services.kernel.contracts.batch import BatchCancelled
from services.kernel.contracts.dead_letter import DeadLetter
from services.kernel.contracts.identity import term_id
from services.kernel.stream.reading import follow, last_message

BATCH = "b1"
EVENT = topology.batch_subject(BATCH, "cancelled")
TERMS = ("책", "물", "불")

Cancel = Callable[..., Awaitable[Result]]


@pytest.fixture
def cancel(nats_server: str) -> Cancel:
    async def run(*arguments: str) -> Result:
        return await cardflow("cancel", *arguments, "--nats", nats_server)

    return run


async def begun(js: JetStreamContext, *, finished: int = 1) -> None:
    """A batch of three accepted terms, of which the first are finished and stored."""
    await open_batch(js, BATCH, len(TERMS))
    for term in TERMS:
        await js.publish(topology.submit_subject(BATCH), term.encode())
    await ingest(js, len(TERMS))
    await finish(js, BATCH, *TERMS[:finished])
    await report(js, BATCH, finished=finished)


def record_of(term: str, *, replays: int = 0) -> DeadLetter:
    headers = {topology.REPLAYS: str(replays)} if replays else {}
    return a_letter(term_id(term, None), reason="cancelled", original_headers=headers)


async def cancel_rest(js: JetStreamContext) -> None:
    """What stage 1 does with the two terms that are left, and the exporter with that."""
    for term in TERMS[1:]:
        await put_on_record(js, record_of(term))
    await report(js, BATCH, finished=1, cancelled=2)


async def is_cancelled(js: JetStreamContext) -> bool:
    return await cancellation_of(js, BATCH) is not None


async def test_it_returns_when_nothing_is_in_flight_and_tells_what_was_spent(
    js: JetStreamContext, cancel: Cancel
) -> None:
    await begun(js)
    command = asyncio.create_task(cancel(BATCH, "--note", "wrong list", "--json"))
    await until(lambda: is_cancelled(js))
    assert (await batch_status(js, BATCH)).state == "cancelling"
    assert not command.done()
    await cancel_rest(js)
    result = await command
    answer = json.loads(result.stdout)
    assert result.exit_code == 0
    assert (answer["outcome"], answer["note"]) == ("cancelled", "wrong list")
    status = answer["status"]
    ended = [status[name] for name in ("finished", "dead", "cancelled", "in_flight", "state")]
    assert ended == [1, 0, 2, 0, "cancelled"]
    assert (status["calls"], status["cost_usd"], status["eta_s"]) == (2, 0.25, 0.0)


async def test_people_are_told_what_was_finished_and_how_to_go_on(
    js: JetStreamContext, cancel: Cancel
) -> None:
    await begun(js)
    await cancel_rest(js)
    shown = (await cancel(BATCH)).stdout
    assert shown.startswith("Batch b1 is cancelled.\n1 terms finished, 0 dead, 2 cancelled;")
    assert "cardflow cancel b1 --undo" in shown


async def test_a_batch_that_is_cancelled_already_says_since_when(
    js: JetStreamContext, cancel: Cancel
) -> None:
    await begun(js)
    await cancel_rest(js)
    first = await cancel_batch(js, BATCH, note="wrong list", at=NOON)
    result = await cancel(BATCH, "--note", "another")
    assert result.exit_code == 0
    assert "has been cancelled since 2026-05-0" in result.stdout
    assert "wrong list" in result.stdout
    assert json.loads((await cancel(BATCH, "--json")).stdout)["outcome"] == "cancelled_before"
    assert await cancellation_of(js, BATCH) == first


async def test_two_people_at_once_are_one_event(js: JetStreamContext) -> None:
    moments = [NOON + timedelta(seconds=number) for number in range(8)]
    events = await asyncio.gather(
        *(cancel_batch(js, BATCH, note=None, at=moment) for moment in moments)
    )
    assert len({event.cancelled_at for event in events}) == 1


async def test_no_wait_returns_while_something_is_in_flight(
    js: JetStreamContext, cancel: Cancel
) -> None:
    await begun(js)
    result = await cancel(BATCH, "--no-wait", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["status"]["state"] == "cancelling"


async def test_when_the_time_is_up_the_answer_is_no(js: JetStreamContext, cancel: Cancel) -> None:
    await begun(js)
    result = await cancel(BATCH, "--timeout-s", "0.2")
    assert result.exit_code == 1
    assert "with 2 terms in flight" in result.stderr
    assert await is_cancelled(js)


async def test_a_batch_that_is_not_there_cannot_be_cancelled(
    js: JetStreamContext, cancel: Cancel
) -> None:
    for arguments in (("nobody",), ("nobody", "--undo"), ("b.*",)):
        result = await cancel(*arguments)
        assert (result.exit_code, "there is no batch" in result.stderr) == (1, True)
    assert await last_message(js, "BATCHES", "batches.nobody.cancelled") is None


@pytest.mark.parametrize(("answer", "code"), [("n", 1), ("y", 0)])
async def test_on_a_terminal_it_asks_first(
    js: JetStreamContext, nats_server: str, answer: str, code: int
) -> None:
    await begun(js)
    ours, theirs = pty.openpty()
    os.write(ours, f"{answer}\n".encode())
    command = [sys.executable, "-m", "services.cli", "cancel", BATCH, "--no-wait"]
    asked = await asyncio.to_thread(
        subprocess.run, [*command, "--nats", nats_server], stdin=theirs, capture_output=True
    )
    os.close(ours)
    os.close(theirs)
    assert asked.returncode == code
    assert b"Cancel batch b1? 2 of 3 terms have not ended." in asked.stderr
    assert await is_cancelled(js) == (answer == "y")


# Taking it up again -------------------------------------------------------------------------------


async def test_undoing_sends_every_cancelled_term_again_once(
    js: JetStreamContext, cancel: Cancel
) -> None:
    await begun(js)
    await cancel_rest(js)
    event = await cancel_batch(js, BATCH, note="wrong list", at=NOON)
    answers = [json.loads((await cancel(BATCH, "--undo", "--json")).stdout) for _ in range(2)]
    assert answers == [
        {"batch": BATCH, "outcome": "undone", "replayed": 2, "failed": 0},
        {"batch": BATCH, "outcome": "not_cancelled", "replayed": 0, "failed": 0},
    ]
    for term in TERMS[1:]:
        message = await js.get_last_msg("TERMS", record_of(term).original_subject)
        assert (message.headers or {})[topology.REPLAYS] == "1"
    assert (await read_letters(js, Wanted(batch=BATCH, cancelled=True))).readable == []
    status = await batch_status(js, BATCH)
    assert (status.state, status.in_flight, status.cancelled) == ("running", 2, 0)
    undone = BatchCancelled.from_bytes(await last_message(js, "BATCHES", EVENT) or b"")
    assert undone.undone_at
    assert undone.model_copy(update={"undone_at": None}) == event


async def test_undoing_that_was_cut_off_is_ended_by_undoing_again(
    js: JetStreamContext, cancel: Cancel
) -> None:
    """The event says that it goes on, and records still stand."""
    await begun(js)
    await cancel_batch(js, BATCH, note=None, at=NOON)
    await cancel(BATCH, "--undo")
    await cancel_rest(js)
    result = await cancel(BATCH, "--undo")
    assert (result.exit_code, result.stdout) == (0, "Batch b1 goes on: 2 terms were sent again.\n")


async def test_a_batch_that_was_taken_up_again_can_be_cancelled_again(
    js: JetStreamContext, cancel: Cancel
) -> None:
    await begun(js)
    await cancel_rest(js)
    for _ in range(2):
        assert (await cancel(BATCH)).exit_code == 0
        assert await is_cancelled(js)
        assert (await cancel(BATCH, "--undo")).exit_code == 0
        assert not await is_cancelled(js)
        await cancel_rest(js)


async def test_what_a_stage_cancels_before_it_has_heard_is_sent_once_more(
    js: JetStreamContext,
) -> None:
    await begun(js)
    await cancel_rest(js)
    await cancel_batch(js, BATCH, note=None, at=NOON)

    async def not_having_heard() -> None:
        term = TERMS[1]
        subject = record_of(term).original_subject
        async for message in follow(js, "TERMS", subject, from_start=False):
            if (message.headers or {}).get(topology.REPLAYS) == "1":
                await put_on_record(js, record_of(term, replays=1))
                return

    stage = asyncio.create_task(not_having_heard())
    await until(lambda: _is_followed(js))
    taken_up = await take_up_again(js, BATCH, at=NOON, per_second=100, heard_s=0.5)
    await stage
    assert (taken_up.replayed, taken_up.failed) == (2, 0)
    message = await js.get_last_msg("TERMS", record_of(TERMS[1]).original_subject)
    assert (message.headers or {})[topology.REPLAYS] == "2"


async def _is_followed(js: JetStreamContext) -> bool:
    return len(await js.consumers_info("TERMS")) == 2


async def test_a_stage_that_never_hears_is_not_waited_for_for_ever(js: JetStreamContext) -> None:
    await begun(js)
    await put_on_record(js, record_of(TERMS[1]))

    async def deaf() -> None:
        replays = 0
        async for message in follow(js, "TERMS", "terms.accepted.b1.*", from_start=False):
            replays = int((message.headers or {})[topology.REPLAYS])
            await put_on_record(js, record_of(TERMS[1], replays=replays))

    stage = asyncio.create_task(deaf())
    await until(lambda: _is_followed(js))
    waits = {"heard_s": 0.5, "heard_at_last_s": 1.0}
    taken_up = await take_up_again(js, BATCH, at=NOON, per_second=100, **waits)
    stage.cancel()
    assert (taken_up.was_cancelled, taken_up.replayed, taken_up.failed) == (True, 0, 1)


async def test_what_cannot_be_sent_again_stays_cancelled_and_is_told(
    js: JetStreamContext, cancel: Cancel
) -> None:
    await begun(js)
    subject = await put_on_record(js, record_of(TERMS[1]))
    letter = await find_letter(js, "/".join(subject.split(".")[1:]), cancelled=True)
    terms = (await js.stream_info("TERMS")).config
    await js.update_stream(terms.evolve(max_bytes=1))
    result = await cancel(BATCH, "--undo", "--json")
    assert json.loads(result.stdout)["failed"] == 1
    assert (result.exit_code, "the same command goes on" in result.stderr) == (1, True)
    assert await stands(js, letter)


# What the other commands make of it ---------------------------------------------------------------


async def test_nothing_is_submitted_to_a_cancelled_batch(
    js: JetStreamContext, nats_server: str, tmp_path: Path
) -> None:
    (tmp_path / "words.txt").write_text("책\n", "utf-8")
    await cancel_batch(js, BATCH, note=None, at=NOON)
    submit = ("submit", str(tmp_path / "words.txt"), "--batch", BATCH, "--nats", nats_server)
    refused = await cardflow(*submit)
    assert refused.exit_code == 1
    assert "has been cancelled since" in refused.stderr
    assert "cardflow cancel b1 --undo" in refused.stderr
    assert (await js.stream_info("SUBMISSIONS")).state.messages == 0
    assert await last_message(js, "BATCHES", topology.batch_subject(BATCH, "opened")) is None
    await take_up_again(js, BATCH, at=NOON, per_second=100, heard_s=0)
    assert (await cardflow(*submit)).exit_code == 0


async def test_waiting_for_a_batch_ends_with_1_when_it_is_cancelled(
    js: JetStreamContext, nats_server: str, tmp_path: Path
) -> None:
    (tmp_path / "words.txt").write_text("\n".join(TERMS), "utf-8")
    submit = ("submit", str(tmp_path / "words.txt"), "--batch", BATCH, "--wait", "--json")
    command = asyncio.create_task(cardflow(*submit, "--nats", nats_server))
    await ingest(js, len(TERMS))
    await finish(js, BATCH, TERMS[0])
    await cancel_batch(js, BATCH, note=None, at=NOON)
    await cancel_rest(js)
    result = await command
    assert result.exit_code == 1
    assert json.loads(result.stdout)["status"]["state"] == "cancelled"


async def test_watching_a_batch_ends_after_its_last_card_when_it_is_cancelled(
    js: JetStreamContext, nats_server: str
) -> None:
    await begun(js)
    watch = ("watch", BATCH, "--from-start", "--nats", nats_server)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.cli", *watch,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout
    assert "책".encode() in await process.stdout.readline()
    await cancel_batch(js, BATCH, note=None, at=NOON)
    last = cards_finished(BATCH, TERMS[1])
    await js.publish(topology.analyzed_subject(BATCH, last.term_id), b"{}")
    await put_on_record(js, record_of(TERMS[2]))
    await js.publish(topology.finished_subject(BATCH, last.term_id), last.to_bytes())
    await report(js, BATCH, finished=2, cancelled=1)
    shown, said = await asyncio.wait_for(process.communicate(), 20)
    assert "물".encode() in shown
    assert b"Batch b1 was cancelled" in said
    assert process.returncode == 0


async def test_the_status_of_all_batches_has_a_column_when_one_was_cancelled(
    js: JetStreamContext, nats_server: str
) -> None:
    await begun(js)
    assert "cancelled" not in (await cardflow("status", "--nats", nats_server)).stdout
    await cancel_rest(js)
    assert "cancelled" in (await cardflow("status", "--nats", nats_server)).stdout
